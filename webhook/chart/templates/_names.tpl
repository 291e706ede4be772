{{/* The words that the templates share. Those of the contract are compared with contract/names.ts by a test. */}}

{{- define "ecr-anywhere.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.policy" -}}
{{ include "ecr-anywhere.fullname" . }}-policy
{{- end -}}

{{/* The name by which the API server calls the webhook, and which its certificate has. */}}
{{- define "ecr-anywhere.serverName" -}}
{{ include "ecr-anywhere.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* What is reached without the proxy: this machine, the cluster, and where AWS' credentials come from. */}}
{{- define "ecr-anywhere.noProxy" -}}
{{ list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" "169.254.169.254" "169.254.170.2" "169.254.170.23" "fd00:ec2::254" "fd00:ec2::23" .Values.proxy.noProxy | compact | join "," }}
{{- end -}}

{{/* Not empty where the kubelet is to bring the token with which the webhook's role is assumed. */}}
{{- define "ecr-anywhere.projectsToken" -}}
{{- with .Values.aws.webIdentity -}}
{{- if and .roleArn (not .tokenFile) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.refresher" -}}
{{ include "ecr-anywhere.fullname" . }}-refresher
{{- end -}}

{{/* The Secret that its tokens are bound to, and what lets it ask for them. */}}
{{- define "ecr-anywhere.refresherToken" -}}
{{ include "ecr-anywhere.refresher" . }}-token
{{- end -}}

{{- define "ecr-anywhere.refresherUsername" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "ecr-anywhere.refresher" . }}
{{- end -}}

{{- define "ecr-anywhere.refresherGroup" -}}
ecr-anywhere:refreshers
{{- end -}}

{{- define "ecr-anywhere.domain" -}}
ecr-anywhere.centml.ai
{{- end -}}

{{/*
Never served. The release's own namespace is among them for recovery's sake: what the webhook needs to start must
never wait for the webhook.
*/}}
{{- define "ecr-anywhere.excludedNamespaces" -}}
{{ list "kube-system" "kube-public" .Release.Namespace | uniq | toJson }}
{{- end -}}

{{- define "ecr-anywhere.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ecr-anywhere.labels" -}}
{{ include "ecr-anywhere.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Whom the refresher's roles are bound to: its ServiceAccount here, and the group for identities from elsewhere. */}}
{{- define "ecr-anywhere.refresherSubjects" -}}
- kind: ServiceAccount
  name: {{ include "ecr-anywhere.refresher" . }}
  namespace: {{ .Release.Namespace }}
- kind: Group
  apiGroup: rbac.authorization.k8s.io
  name: {{ include "ecr-anywhere.refresherGroup" . }}
{{- end -}}

{{/* list finds what is due, patch sets the mark; get, watch and update are not needed. */}}
{{- define "ecr-anywhere.refresherRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, patch]
{{- end -}}

{{/* The fence's condition. Nobody else is held up: an absent name or group is no error. */}}
{{- define "ecr-anywhere.isRefresher" -}}
- name: is-refresher
  expression: >-
    {{ include "ecr-anywhere.isRefresherExpression" . | nindent 4 | trim }}
{{- end -}}

{{- define "ecr-anywhere.isRefresherExpression" -}}
request.userInfo.?username.orValue('') == '{{ include "ecr-anywhere.refresherUsername" . }}' ||
'{{ include "ecr-anywhere.refresherGroup" . }}' in request.userInfo.?groups.orValue([])
{{- end -}}


{{/* Who the webhook is to the API server. */}}
{{- define "ecr-anywhere.webhookUsername" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "ecr-anywhere.fullname" . }}
{{- end -}}

{{- define "ecr-anywhere.webhookSubjects" -}}
- kind: ServiceAccount
  name: {{ include "ecr-anywhere.fullname" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* Not empty where the Prometheus operator is to read metrics. */}}
{{- define "ecr-anywhere.serviceMonitor" -}}
{{- if and .Values.metrics.port .Values.metrics.serviceMonitor.enabled -}}true{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# Keys and tokens are readable by this group and nobody else.
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ecr-anywhere.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Of the Secret that `helm test` asks for: one that the policy entitles to something. */}}
{{- define "ecr-anywhere.testNamespace" -}}
{{- $entitled := "default" -}}
{{- with .Values.registries -}}
{{- $entitled = first (first .).namespaces | replace "*" "x" -}}
{{- end -}}
{{ .Values.test.namespace | default $entitled }}
{{- end -}}

{{/* What the kubelet would mount by itself, with a token of an hour. */}}
{{- define "ecr-anywhere.serviceAccountVolume" -}}
projected:
  defaultMode: 0440
  sources:
    - serviceAccountToken:
        expirationSeconds: 3600
        path: token
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
{{- end -}}
