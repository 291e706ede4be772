{{/* Names that several templates use. A test compares those of the contract with contract/names.ts. */}}

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

{{/* The DNS name at which the API server calls the webhook; the serving certificate is for this name. */}}
{{- define "ecr-anywhere.serverName" -}}
{{ include "ecr-anywhere.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Hosts that the webhook reaches without the proxy: loopback, the cluster, and the AWS credential endpoints. */}}
{{- define "ecr-anywhere.noProxy" -}}
{{ list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" "169.254.169.254" "169.254.170.2" "169.254.170.23" "fd00:ec2::254" "fd00:ec2::23" .Values.proxy.noProxy | compact | join "," }}
{{- end -}}

{{/* Not empty if the kubelet projects the token with which the webhook assumes its role. */}}
{{- define "ecr-anywhere.projectsToken" -}}
{{- with .Values.aws.webIdentity -}}
{{- if and .roleArn (not .tokenFile) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.refresher" -}}
{{ include "ecr-anywhere.fullname" . }}-refresher
{{- end -}}

{{/* The Secret that the refresher's tokens are bound to; also the Role and the policy for requesting tokens. */}}
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
The webhook never serves these namespaces. The release's own namespace is among them because the Secrets that the webhook
needs to start must not wait for the webhook.
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

{{/* The subjects of the refresher's roles: its ServiceAccount, and the group for other identities, such as an EKS access entry. */}}
{{- define "ecr-anywhere.refresherSubjects" -}}
- kind: ServiceAccount
  name: {{ include "ecr-anywhere.refresher" . }}
  namespace: {{ .Release.Namespace }}
- kind: Group
  apiGroup: rbac.authorization.k8s.io
  name: {{ include "ecr-anywhere.refresherGroup" . }}
{{- end -}}

{{/* The refresher lists Secrets to find those that are due, and patches the refresh request. It needs no other verb. */}}
{{- define "ecr-anywhere.refresherRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, patch]
{{- end -}}

{{/* The match condition of the policies for the refresher. A request without username or groups does not match, and is no error. */}}
{{- define "ecr-anywhere.isRefresher" -}}
- name: is-refresher
  expression: >-
    {{ include "ecr-anywhere.isRefresherExpression" . | nindent 4 | trim }}
{{- end -}}

{{- define "ecr-anywhere.isRefresherExpression" -}}
request.userInfo.?username.orValue('') == '{{ include "ecr-anywhere.refresherUsername" . }}' ||
'{{ include "ecr-anywhere.refresherGroup" . }}' in request.userInfo.?groups.orValue([])
{{- end -}}


{{/* Not empty if the API server proves to the webhook that a review comes from it. */}}
{{- define "ecr-anywhere.callerProof" -}}
{{- $mode := .Values.callerProof.mode -}}
{{- if or (eq $mode "enabled") (and (eq $mode "auto") (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")) -}}true{{- end -}}
{{- end -}}

{{/* Not empty if the webhook answers only callers that prove to be the API server. */}}
{{- define "ecr-anywhere.callersAuthenticated" -}}
{{- if or .Values.clientCA (include "ecr-anywhere.callerProof" .) -}}true{{- end -}}
{{- end -}}

{{/*
Not empty if a network policy lets only the API servers reach the webhook: the Cilium form by entities, the other by addresses or
peers. A range of every address keeps no pod out, nor does a peer in every namespace, whose labels any pod can have. No network
policy applies to the node's network.
*/}}
{{- define "ecr-anywhere.callersKeptOut" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $limits := or (eq $policy.type "cilium") $policy.apiServers $policy.peers -}}
{{- range $policy.apiServers -}}{{- if hasSuffix "/0" . -}}{{- $limits = false -}}{{- end -}}{{- end -}}
{{- range $policy.peers -}}
{{- if and (hasKey . "namespaceSelector") (not .namespaceSelector) -}}{{- $limits = false -}}{{- end -}}
{{- if hasSuffix "/0" (dig "ipBlock" "cidr" "" .) -}}{{- $limits = false -}}{{- end -}}
{{- end -}}
{{- if and $policy.enabled $limits (not .Values.hostNetwork) -}}true{{- end -}}
{{- end -}}

{{/* The Secret that holds the caller proof; also the names of the policies. */}}
{{- define "ecr-anywhere.callerProofName" -}}
{{ include "ecr-anywhere.fullname" . }}-caller-proof
{{- end -}}

{{/* Not empty if the webhook creates and rotates the caller proof itself. */}}
{{- define "ecr-anywhere.ownCallerProof" -}}
{{- if and (include "ecr-anywhere.callerProof" .) (not .Values.callerProof.existingSecret) -}}true{{- end -}}
{{- end -}}

{{/* The Secrets that the webhook reads and writes, as a list; empty if it calls no API server. */}}
{{- define "ecr-anywhere.ownSecrets" -}}
{{- $names := list -}}
{{- if eq .Values.tls.mode "self" -}}{{- $names = append $names (include "ecr-anywhere.tlsSecret" .) -}}{{- end -}}
{{- if include "ecr-anywhere.ownCallerProof" . -}}{{- $names = append $names (include "ecr-anywhere.callerProofName" .) -}}{{- end -}}
{{ toJson $names }}
{{- end -}}

{{/* The namespaces whose managed Secrets the API server sends to the webhook. */}}
{{- define "ecr-anywhere.namespaceSelector" -}}
matchExpressions:
  - key: {{ include "ecr-anywhere.domain" . }}/namespace
    operator: In
    values: [enabled]
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ include "ecr-anywhere.excludedNamespaces" . }}
{{- end -}}

{{/*
The Secrets of these namespaces that the API server sends. objectSelector matches if the old or the new object has the label. A
Secret that loses the label or is being deleted need not wait for the webhook. The webhook must see every write of the
refresher, because it checks what was sent.
*/}}
{{- define "ecr-anywhere.secretSelectors" -}}
objectSelector:
  matchLabels:
    {{ include "ecr-anywhere.domain" . }}/managed: "true"
{{- end -}}

{{- define "ecr-anywhere.secretConditions" -}}
- name: is-managed-or-by-refresher
  expression: >-
    (object.metadata.?labels[?'{{ include "ecr-anywhere.domain" . }}/managed'].orValue('') == 'true' &&
    !has(object.metadata.deletionTimestamp)) ||
    {{ include "ecr-anywhere.isRefresherExpression" . | nindent 4 | trim }}
{{- end -}}

{{/* The webhook's username at the API server. */}}
{{- define "ecr-anywhere.webhookUsername" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "ecr-anywhere.fullname" . }}
{{- end -}}

{{- define "ecr-anywhere.webhookSubjects" -}}
- kind: ServiceAccount
  name: {{ include "ecr-anywhere.fullname" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* Not empty if the Prometheus operator reads the metrics. */}}
{{- define "ecr-anywhere.serviceMonitor" -}}
{{- if and .Values.metrics.port .Values.metrics.serviceMonitor.enabled -}}true{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# Only this group can read the mounted keys and tokens.
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

{{/* The namespace of the Secret that `helm test` tries: one that the registry policy gives a registry. */}}
{{- define "ecr-anywhere.testNamespace" -}}
{{ .Values.test.namespace | default (include "ecr-anywhere.entitledNamespace" (list . "default")) }}
{{- end -}}

{{/* A namespace that the registry policy gives a registry: the first one, or the second argument if that is "*". */}}
{{- define "ecr-anywhere.entitledNamespace" -}}
{{- $values := (first .).Values -}}
{{- if not (or $values.registries $values.ownRegistry.namespaces) -}}{{- include "ecr-anywhere.checkPolicy" (first .) -}}{{- end -}}
{{- $namespaces := $values.ownRegistry.namespaces -}}
{{- if not $namespaces -}}{{- $namespaces = (first $values.registries).namespaces -}}{{- end -}}
{{- $glob := first $namespaces -}}
{{ ternary (last .) ($glob | replace "*" "x") (eq $glob "*") }}
{{- end -}}

{{/* The volume that the kubelet would mount by default, with a token of one hour. */}}
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
