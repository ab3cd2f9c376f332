{{/* The name of the release's objects. */}}
{{- define "kitepool.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "kitepool" .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-kitepool" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What the controller's own pods are selected by. Never change it: a Deployment's selector cannot be. */}}
{{- define "kitepool.selectorLabels" -}}
app.kubernetes.io/name: kitepool
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kitepool.labels" -}}
{{ include "kitepool.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kitepool.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "kitepool.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are served, as JSON, since a template can hand on nothing but text. */}}
{{- define "kitepool.namespaces" -}}
{{- .Values.namespaces | default (list .Release.Namespace) | toJson -}}
{{- end -}}

{{- define "kitepool.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Where the webhook's hints go. */}}
{{- define "kitepool.webhookNamespace" -}}
{{- $namespaces := include "kitepool.namespaces" . | fromJsonArray -}}
{{- if .Values.webhook.namespace -}}
{{- if not (has .Values.webhook.namespace $namespaces) -}}
{{- fail (printf "webhook.namespace: %s is not served; name one of %s" .Values.webhook.namespace (join ", " $namespaces)) -}}
{{- end -}}
{{- .Values.webhook.namespace -}}
{{- else if eq (len $namespaces) 1 -}}
{{- first $namespaces -}}
{{- else -}}
{{- fail "webhook.namespace: several namespaces are served, and a hint is for the pools beside it; name one" -}}
{{- end -}}
{{- end -}}
