{{- /* Values that are each well formed, and do not go together. What one value alone may be, values.schema.json says. */ -}}
{{- define "worker.checks" -}}
{{- if .Values.autoscaling.enabled -}}{{- include "worker.checkAutoscaling" . -}}{{- end -}}
{{- end -}}

{{- define "worker.checkAutoscaling" -}}
{{- $least := int .Values.autoscaling.minReplicas -}}
{{- $most := int .Values.autoscaling.maxReplicas -}}
{{- $fallback := int (include "worker.fallbackReplicas" .) -}}
{{- if gt $least $most -}}
{{- fail (printf "autoscaling.minReplicas: expected at most autoscaling.maxReplicas, %d, not %d" $most $least) -}}
{{- end -}}
{{- if or (lt $fallback $least) (gt $fallback $most) -}}
{{- fail (printf "autoscaling.fallback.replicas: expected minReplicas to maxReplicas, %d to %d, not %d" $least $most $fallback) -}}
{{- end -}}
{{- if and .Values.autoscaling.authModes (not .Values.autoscaling.authenticationRef.name) -}}
{{- fail "autoscaling.authModes: expected autoscaling.authenticationRef.name beside it, which holds what they need" -}}
{{- end -}}
{{- end -}}
