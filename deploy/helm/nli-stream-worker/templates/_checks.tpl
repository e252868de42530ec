{{- /* Values that are each well formed, and do not go together. What one value alone may be, values.schema.json says. */ -}}
{{- define "worker.checks" -}}
{{- if .Values.autoscaling.enabled -}}{{- include "worker.checkAutoscaling" . -}}{{- end -}}
{{- if .Values.gpu.enabled -}}{{- include "worker.checkGpu" . -}}{{- end -}}
{{- include "worker.checkDrain" . -}}
{{- include "worker.checkLabelSchemas" . -}}
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

{{- /* What only a variable says is not known here: the worker's own check sees it. */ -}}
{{- define "worker.checkGpu" -}}
{{- $names := include "worker.extraNames" . -}}
{{- $model := .Values.config.model | default "bundled" -}}
{{- $engine := .Values.config.engine | default "auto" -}}
{{- if and (eq $model "bundled") (not (contains " WORKER_MODEL " $names)) -}}
{{- fail "gpu.enabled: the bundled model runs on the CPU, and would hold a GPU that it does not use; expected another one in config.model, a folder or a Hugging Face id@revision" -}}
{{- end -}}
{{- if and (has $engine (list "openvino" "fake")) (not (contains " WORKER_ENGINE " $names)) -}}
{{- fail (printf "gpu.enabled: config.engine %s runs on the CPU, and would hold a GPU that it does not use; expected auto, tensorrt or pytorch" $engine) -}}
{{- end -}}
{{- end -}}

{{- /* 15 s is what a worker gives its threads after `drain_seconds` to put down what they hold. */ -}}
{{- define "worker.checkDrain" -}}
{{- $drain := 30.0 -}}
{{- if hasKey .Values.config "drain_seconds" -}}{{- $drain = float64 .Values.config.drain_seconds -}}{{- end -}}
{{- $least := ceil (addf $drain 15.0) | int -}}
{{- if not (contains " WORKER_DRAIN_SECONDS " (include "worker.extraNames" .)) -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds: expected at least %d, config.drain_seconds (%v) and 15 s to end in, not %d" $least $drain (int .Values.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Only where all label schemas stand in the values: those of a topic or of a volume are not known here. */ -}}
{{- define "worker.checkLabelSchemas" -}}
{{- $schemas := .Values.config.schemas | default dict -}}
{{- $isUnknown := or $schemas.topic (contains " WORKER_SCHEMAS" (include "worker.extraNames" .)) -}}
{{- if and $schemas.directory (not .Values.labelSchemas) -}}{{- $isUnknown = true -}}{{- end -}}
{{- $known := dict -}}
{{- range $file, $document := .Values.labelSchemas -}}
{{- $schema := $document -}}
{{- if kindIs "string" $document -}}{{- $schema = fromYaml $document -}}{{- end -}}
{{- if and (kindIs "map" $schema) (kindIs "string" $schema.name) -}}
{{- $_ := set $known $schema.name true -}}
{{- if $schema.version -}}{{- $_ := set $known (printf "%s@%d" $schema.name (int64 $schema.version)) true -}}{{- end -}}
{{- else -}}
{{- $isUnknown = true -}}
{{- end -}}
{{- end -}}
{{- range .Values.config.topics -}}
{{- if and .label_schema (not $isUnknown) (not (hasKey $known (toString .label_schema))) -}}
{{- fail (printf "config.topics: %s has the label schema %s, which is none of labelSchemas (%s); expected it there, or config.schemas.topic" .input .label_schema (keys $known | sortAlpha | join ", " | default "there are none")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
