{{- define "worker.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "worker.selector" -}}
app.kubernetes.io/name: nli-stream-worker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "worker.labels" -}}
{{ include "worker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "worker.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "worker.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* The document `worker.yaml`: what the values say, and what only the pod knows. */ -}}
{{- define "worker.config" -}}
{{- $set := dict "http" (dict "host" "0.0.0.0" "port" 8080) "cache_dir" "/cache" -}}
{{- $schemas := merge (dict "directory" "/etc/worker/schemas") (.Values.config.schemas | default dict) -}}
{{- if .Values.labelSchemas -}}{{- $_ := set $set "schemas" $schemas -}}{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) $set | toYaml -}}
{{- end -}}

{{- /* What holds without a lag to go by: alone it has to be enough for any, beside what runs the least will do. */ -}}
{{- define "worker.fallbackReplicas" -}}
{{- $scaling := .Values.autoscaling -}}
{{- $isAlone := eq "static" ($scaling.fallback.behavior | default "static") -}}
{{- $scaling.fallback.replicas | default (ternary $scaling.maxReplicas $scaling.minReplicas $isAlone) -}}
{{- end -}}

{{- /* The names of `extraEnv`, each in capitals after a blank: the worker takes a variable in any case. */ -}}
{{- define "worker.extraNames" -}}
{{- range .Values.extraEnv }} {{ upper .name }}{{ end }} {{ end -}}

{{- /* Not empty where the engine has a thread for each core of the request: nothing else says how many it has. */ -}}
{{- define "worker.threadsAreTheRequest" -}}
{{- $resources := .Values.resources -}}
{{- $isSaid := or .Values.config.threads (contains " WORKER_THREADS " (include "worker.extraNames" .)) -}}
{{- if and ($resources.requests | default dict).cpu (not ($resources.limits | default dict).cpu) (not $isSaid) -}}
true
{{- end -}}
{{- end -}}
