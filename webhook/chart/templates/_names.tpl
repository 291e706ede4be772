{{/* Names that several templates use. A test compares those of the contract with contract/names.ts. */}}

{{- define "ecr-anywhere.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}

{{/* At most 50 characters, because others are formed from it, and a Service's name has at most 63. */}}
{{- define "ecr-anywhere.fullname" -}}
{{- if not .Values.enabled -}}
{{- fail "enabled is false, but this chart is not a dependency with a condition, so Helm would install it. Leave enabled out, or give the dependency in the parent's Chart.yaml: condition: ecr-anywhere.enabled" -}}
{{- end -}}
{{- $name := include "ecr-anywhere.name" . -}}
{{- $fullname := .Values.fullnameOverride -}}
{{- if not $fullname -}}
{{- $fullname = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- if regexMatch "^[0-9]" $fullname -}}
{{- fail (printf "The release's name gives the Service the name %s, but a Service's name begins with a letter. Add --set fullnameOverride=ecr-anywhere" $fullname) -}}
{{- end -}}
{{ $fullname }}
{{- end -}}

{{/* Not empty on OpenShift. */}}
{{- define "ecr-anywhere.openshift" -}}
{{- if or (eq .Values.openshift "enabled") (and (eq .Values.openshift "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) -}}true{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.serviceAccount" -}}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false, but serviceAccount.name is empty, so the pods would use the ServiceAccount default, and every pod of the namespace would have the webhook's rights. Add --set serviceAccount.name=, with a ServiceAccount that only the webhook uses" -}}
{{- end -}}
{{ .Values.serviceAccount.name | default (include "ecr-anywhere.fullname" .) }}
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

{{/* The ports of the cluster's DNS servers. A network policy sees the pods' ports: OpenShift's listen on 5353. */}}
{{- define "ecr-anywhere.dnsPorts" -}}
{{ ternary (list 53 5353) (list 53) (ne (include "ecr-anywhere.openshift" .) "") | toJson }}
{{- end -}}

{{/*
Not empty if the webhook may need an identity that the node gives: EKS Pod Identity or the node's role. The SDK prefers those
that the values can name.
*/}}
{{- define "ecr-anywhere.nodeIdentity" -}}
{{- $irsa := index (.Values.serviceAccount.annotations | default dict) "eks.amazonaws.com/role-arn" -}}
{{- if not (or .Values.aws.webIdentity.roleArn .Values.aws.credentialsSecret $irsa) -}}true{{- end -}}
{{- end -}}

{{/* The addresses at which a node gives an identity: the EKS Pod Identity agent, and EC2's instance metadata. */}}
{{- define "ecr-anywhere.linkLocal" -}}
["169.254.170.23/32", "fd00:ec2::23/128", "169.254.169.254/32", "fd00:ec2::254/128"]
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

{{/* The refresher's CronJob. Kubernetes allows 52 characters. */}}
{{- define "ecr-anywhere.refresherCronJob" -}}
{{ include "ecr-anywhere.refresher" . | trunc 52 | trimSuffix "-" }}
{{- end -}}

{{/* Its Pods have another name than the webhook's, so that the Service and the PodDisruptionBudget do not select them. */}}
{{- define "ecr-anywhere.refresherSelectorLabels" -}}
app.kubernetes.io/name: {{ include "ecr-anywhere.name" . }}-refresher
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Once an hour. The minute differs between clusters with the same release, so that they do not all call ECR at once. */}}
{{- define "ecr-anywhere.refresherSchedule" -}}
{{- $system := lookup "v1" "Namespace" "" "kube-system" -}}
{{- $seed := printf "%s/%s/%s" .Release.Namespace .Release.Name (dig "metadata" "uid" "" $system) -}}
{{ (.Values.refresher.inCluster).schedule | default (printf "%d * * * *" (mod (adler32sum $seed | int64) 60)) }}
{{- end -}}

{{/* The refresher's name in managedFields. */}}
{{- define "ecr-anywhere.refresherFieldManager" -}}
ecr-anywhere-refresher
{{- end -}}

{{/* The refresher's name in managedFields for the Secrets that it creates. */}}
{{- define "ecr-anywhere.provisionFieldManager" -}}
ecr-anywhere-provision
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
app.kubernetes.io/name: {{ include "ecr-anywhere.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The command line finds a release by part-of, which no value changes. */}}
{{- define "ecr-anywhere.ownLabels" -}}
{{ include "ecr-anywhere.selectorLabels" . }}
app.kubernetes.io/part-of: ecr-anywhere
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "ecr-anywhere.labels" -}}
{{ include "ecr-anywhere.labelsWith" (list . dict) }}
{{- end -}}

{{/* The second argument has more labels of one object. */}}
{{- define "ecr-anywhere.labelsWith" -}}
{{- $own := include "ecr-anywhere.ownLabels" (first .) | fromYaml -}}
{{ merge $own (last . | default dict) ((first .).Values.commonLabels | default dict) | toYaml }}
{{- end -}}

{{/* The subjects of the refresher's roles: its ServiceAccount, and the group for other identities, such as an EKS access entry. */}}
{{- define "ecr-anywhere.refresherSubjects" -}}
- kind: ServiceAccount
  name: {{ include "ecr-anywhere.refresher" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
- kind: Group
  apiGroup: rbac.authorization.k8s.io
  name: {{ include "ecr-anywhere.refresherGroup" . }}
{{- end -}}

{{/*
The refresher lists Secrets to find those that are due, and patches the refresh request. With provision.secretName it creates the
Secret of that name by server-side apply. RBAC knows the name of an apply, not that of a POST, so the rule allows no POST. The
refresher reads the name from this rule. With events.enabled it creates Events.
*/}}
{{- define "ecr-anywhere.refresherRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, patch]
{{- with (.Values.provision).secretName }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ . | quote }}]
  verbs: [create]
{{- end }}
{{- if (.Values.events).enabled }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
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

{{/* What keeps other pods from the webhook's answers. */}}
{{- define "ecr-anywhere.callers" -}}
{{- if include "ecr-anywhere.callerProof" . -}}caller-proof
{{- else if .Values.clientCA -}}client-certificate
{{- else if include "ecr-anywhere.callersKeptOut" . -}}{{ ternary "cilium-network-policy" "network-policy" (eq .Values.networkPolicy.type "cilium") }}
{{- else -}}any
{{- end -}}
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
system:serviceaccount:{{ .Release.Namespace }}:{{ include "ecr-anywhere.serviceAccount" . }}
{{- end -}}

{{- define "ecr-anywhere.webhookSubjects" -}}
- kind: ServiceAccount
  name: {{ include "ecr-anywhere.serviceAccount" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{/* Not empty if the Prometheus operator reads the metrics. */}}
{{- define "ecr-anywhere.serviceMonitor" -}}
{{- if and .Values.metrics.port .Values.metrics.serviceMonitor.enabled -}}true{{- end -}}
{{- end -}}

{{/*
The security context of the pods. OpenShift's SCC restricted-v2 refuses a user or group that is not in the namespace's range, and
sets them itself.
*/}}
{{- define "ecr-anywhere.podSecurityContext" -}}
{{- $context := deepCopy (.Values.podSecurityContext | default dict) -}}
{{- if include "ecr-anywhere.openshift" . -}}
{{- range list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- if eq (index $context . | toString) "65532" -}}{{- $context = omit $context . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{ $context | toYaml }}
{{- end -}}

{{/* As above, and the sysctl for ports below 1024. It is one of the safe ones, which also OpenShift allows. */}}
{{- define "ecr-anywhere.webhookSecurityContext" -}}
{{- $context := include "ecr-anywhere.podSecurityContext" . | fromYaml -}}
{{- if include "ecr-anywhere.privilegedPort" . -}}
{{- $sysctls := list (dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0") -}}
{{- range $context.sysctls -}}
{{- if ne .name "net.ipv4.ip_unprivileged_port_start" -}}{{- $sysctls = append $sysctls . -}}{{- end -}}
{{- end -}}
{{- $context = set $context "sysctls" $sysctls -}}
{{- end -}}
{{ $context | toYaml }}
{{- end -}}

{{/* The Secrets for the image: the chart's, and those of a parent chart, which are names or objects. */}}
{{- define "ecr-anywhere.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (.Values.imagePullSecrets | default list) ((.Values.global).imagePullSecrets | default list) -}}
{{- $secrets = append $secrets (dict "name" (ternary . (dig "name" "" (ternary dict . (kindIs "string" .))) (kindIs "string" .))) -}}
{{- end -}}
{{- with uniq $secrets -}}{{ toYaml . }}{{- end -}}
{{- end -}}

{{/* The default constraints select the pods of the release. */}}
{{- define "ecr-anywhere.topologySpreadConstraints" -}}
{{- $constraints := list -}}
{{- $selector := dict "matchLabels" (include "ecr-anywhere.selectorLabels" . | fromYaml) -}}
{{- range .Values.topologySpreadConstraints -}}
{{- $constraints = append $constraints (merge (deepCopy .) (ternary dict (dict "labelSelector" $selector) (hasKey . "labelSelector"))) -}}
{{- end -}}
{{- with $constraints -}}{{ toYaml . }}{{- end -}}
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

{{/* The volume that the kubelet would mount by default. The argument is the token's lifetime in seconds. */}}
{{- define "ecr-anywhere.serviceAccountVolume" -}}
projected:
  defaultMode: 0440
  sources:
    - serviceAccountToken:
        expirationSeconds: {{ . }}
        path: token
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
{{- end -}}

{{/* The name of the Secret that new Pods get. Fails if the cluster cannot attach it. */}}
{{- define "ecr-anywhere.attachSecret" -}}
{{- if not (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") -}}
{{- fail "attach.enabled: this cluster has no MutatingAdmissionPolicies (admissionregistration.k8s.io/v1, Kubernetes 1.36). Leave it false, and name the Secret in Pods or ServiceAccounts (docs/managed-secrets.md). Without a cluster, as in helm template, add --api-versions admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- end -}}
{{ required "attach.secretName: the name of the managed Secret in the enabled namespaces is missing. Add --set attach.secretName=ecr" ((.Values.attach).secretName | default (.Values.provision).secretName) }}
{{- end -}}

{{/* The hosts of the registry policy, as a JSON array. Fails if one is not known. */}}
{{- define "ecr-anywhere.attachHosts" -}}
{{- $hosts := list -}}
{{- range .Values.registries -}}{{- $hosts = append $hosts .host -}}{{- end -}}
{{- if .Values.ownRegistry.namespaces -}}
{{- $host := include "ecr-anywhere.ownHost" . -}}
{{- if not $host -}}
{{- fail "attach.enabled: the values do not say which account ownRegistry is in, so the chart does not know the host of its images. Add --set-string ownRegistry.account=123456789012, with that account" -}}
{{- end -}}
{{- $hosts = append $hosts $host -}}
{{- end -}}
{{ $hosts | uniq | toJson }}
{{- end -}}
