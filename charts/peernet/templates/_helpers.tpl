{{/* Beginning of the names of all objects. 40 characters leave room for the longest ending. */}}
{{- define "peernet.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "peernet.operator" -}}
{{ include "peernet.fullname" . }}-operator
{{- end -}}

{{- define "peernet.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "peernet.operator" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* Labels of the operator's pod that never change: a Deployment's selector is immutable. */}}
{{- define "peernet.selectorLabels" -}}
app.kubernetes.io/name: peernet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "peernet.labels" -}}
{{ include "peernet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: peernet
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image: (dict "image" .Values.image "chart" .Chart). */}}
{{- define "peernet.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{/* All that the operator does with the API server, sorted; nothing else is used. */}}
{{- define "peernet.rules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, get]
- apiGroups: [""]
  resources: [services]
  verbs: [create, get, list, patch, watch]
- apiGroups: [apps]
  resources: [daemonsets, statefulsets]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [peernet.dev]
  resources: [peernetworks]
  verbs: [list, watch]
- apiGroups: [peernet.dev]
  resources: [peernetworks/status]
  verbs: [patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, delete, get, list, patch, watch]
{{- end -}}
