{{- define "postroom.fullname" -}}
{{- if contains "postroom" .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- else -}}{{ printf "%s-postroom" (.Release.Name | trunc 41 | trimSuffix "-") }}{{- end -}}
{{- end }}

{{- define "postroom.selector" -}}
app.kubernetes.io/name: postroom
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "postroom.labels" -}}
{{ include "postroom.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "postroom.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ .Values.serviceAccount.name | default (include "postroom.fullname" .) }}{{- else -}}{{ .Values.serviceAccount.name | default "default" }}{{- end -}}
{{- end }}

{{- /* The port that the process listens on, from config.http.listen. */ -}}
{{- define "postroom.port" -}}
{{- regexReplaceAll "^.*:" .Values.config.http.listen "" -}}
{{- end }}

{{- /* Seconds from SIGTERM to SIGKILL: always longer than what the process itself takes at most. Template functions read no durations, but move
dates by them; a fraction of a second is covered by the margin. */ -}}
{{- define "postroom.grace" -}}
{{- $zero := toDate "2006-01-02" "2000-01-01" -}}
{{- $timeout := sub (mustDateModify (printf "+%s" .Values.config.worker.shutdown_timeout) $zero | unixEpoch) (unixEpoch $zero) -}}
{{- add $timeout .Values.preStopSeconds .Values.graceMarginSeconds -}}
{{- end }}

{{- /* The Deployments: a list of name, roles, replicas and resources, as JSON. */ -}}
{{- define "postroom.deployments" -}}
{{- $name := include "postroom.fullname" . -}}
{{- if .Values.separate -}}
{{- list (dict "name" (printf "%s-api" $name) "component" "api" "roles" "api" "replicas" .Values.api.replicas "resources" .Values.api.resources)
	(dict "name" (printf "%s-worker" $name) "component" "worker" "roles" "worker" "replicas" .Values.worker.replicas "resources" .Values.worker.resources) | toJson -}}
{{- else -}}
{{- list (dict "name" $name "component" "server" "roles" "api,worker" "replicas" .Values.replicas "resources" .Values.resources) | toJson -}}
{{- end -}}
{{- end }}
