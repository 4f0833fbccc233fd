{{- define "bridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "bridge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "bridge.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "bridge.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "bridge.selector" -}}
app.kubernetes.io/name: {{ include "bridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "bridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "bridge.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "bridge.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* One variable from a key of a secret: dict name, secret, key. */}}
{{- define "bridge.fromSecret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}

{{- /* The port of a URL, or its scheme's: dict url. */}}
{{- define "bridge.port" -}}
{{- $port := regexReplaceAll "^(?:[a-z]+://)?(?:\\[[^\\]]*\\]|[^:/]*)(?::([0-9]+))?.*$" .url "${1}" }}
{{- $scheme := regexFind "^[a-z]+://" .url }}
{{- $port | default (get (dict "http://" "80" "https://" "443" "ws://" "80" "wss://" "443") $scheme) | default "4222" }}
{{- end }}

{{- /* BRIDGE_SHUTDOWN_TIMEOUT in whole seconds: what a date is moved by is a Go duration. */}}
{{- define "bridge.shutdownSeconds" -}}
{{- $start := toDate "2006-01-02" "2000-01-01" }}
{{- sub (mustDateModify (printf "+%v" (dig "BRIDGE_SHUTDOWN_TIMEOUT" "20s" (.Values.settings | default dict))) $start | unixEpoch) ($start | unixEpoch) }}
{{- end }}

{{- /* How long a pod may take to stop. */}}
{{- define "bridge.grace" -}}
{{- $stop := include "bridge.shutdownSeconds" . | int }}
{{- $grace := .Values.terminationGracePeriodSeconds | default (add $stop 10) | int }}
{{- if le $grace $stop }}
{{- fail (printf "terminationGracePeriodSeconds: %d kills the pod before BRIDGE_SHUTDOWN_TIMEOUT, %d s, has passed" $grace $stop) }}
{{- end }}
{{- $grace }}
{{- end }}

{{- /* Nine tenths of the memory limit in bytes, or nothing if there is none. */}}
{{- define "bridge.goMemory" -}}
{{- $limit := include "bridge.text" (dig "limits" "memory" "" (.Values.resources | default dict)) }}
{{- $unit := get (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "k" 1000 "M" 1000000 "G" 1000000000) (regexFind "[A-Za-z]+$" $limit) | default 1 }}
{{- if regexMatch "^[0-9.]+([KMG]i|[kMG])?$" $limit }}
{{- mulf (regexFind "^[0-9.]+" $limit | float64) $unit 0.9 | floor | int64 }}
{{- end }}
{{- end }}

{{- /* A value as it was written: a number of a million would come out as 1e+06. */}}
{{- define "bridge.text" -}}
{{- kindIs "string" . | ternary . (toJson .) }}
{{- end }}
