{{/* Checks of the values that the schema cannot express. Each failure says what is wrong, why, and how to correct it. */}}

{{- define "ecr-anywhere.image" -}}
{{- $image := .Values.image -}}
{{- if not $image.repository -}}
{{- fail "image.repository is missing. No image is published, so build webhook/Dockerfile and push it to a registry from which the cluster can pull without this webhook (a private ECR repository would need the webhook to start the webhook). Then add --set image.repository=registry.example.com/ecr-anywhere" -}}
{{- end -}}
{{- $repository := $image.repository -}}
{{- $registry := (.Values.global).imageRegistry -}}
{{- if and $registry (not (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $repository)) -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" $registry) $repository -}}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.region" -}}
{{- if not .Values.aws.region -}}
{{- fail "aws.region is missing. The webhook requests ECR tokens in this region. Add --set aws.region=eu-central-1, with the region of your registry." -}}
{{- end -}}
{{ .Values.aws.region }}
{{- end -}}

{{- define "ecr-anywhere.credentialsSecret" -}}
{{- if and .Values.aws.credentialsSecret .Values.aws.webIdentity.roleArn -}}
{{- fail "aws.credentialsSecret and aws.webIdentity.roleArn are both set. The AWS SDK would use the keys of the Secret and ignore the role. Leave one of them empty: add --set aws.credentialsSecret= or --set aws.webIdentity.roleArn=" -}}
{{- end -}}
{{- if and .Values.aws.webIdentity.tokenFile (not .Values.aws.webIdentity.roleArn) -}}
{{- fail "aws.webIdentity.tokenFile is set, but aws.webIdentity.roleArn is empty, so the webhook has no role to assume with the token. Add --set aws.webIdentity.roleArn=arn:aws:iam::123456789012:role/ecr-anywhere" -}}
{{- end -}}
{{- if and .Values.aws.assumeRole.externalId (not .Values.aws.assumeRole.roleArn) -}}
{{- fail "aws.assumeRole.externalId is set, but aws.assumeRole.roleArn is empty, so the webhook has no role to assume with the external ID. Add --set aws.assumeRole.roleArn=arn:aws:iam::123456789012:role/ecr-anywhere" -}}
{{- end -}}
{{ .Values.aws.credentialsSecret }}
{{- end -}}

{{/* Not empty if a port is below 1024: then the pod needs a sysctl, because the container does not run as root. */}}
{{- define "ecr-anywhere.privilegedPort" -}}
{{- $ports := list (int .Values.webhook.port) -}}
{{- with int .Values.metrics.port -}}{{- $ports = append $ports . -}}{{- end -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail (printf "webhook.port and metrics.port are both %d, and one container cannot listen twice on a port. Choose another for one of them, such as --set metrics.port=9091" (first $ports)) -}}
{{- end -}}
{{- range $ports -}}
{{- if lt . 1024 -}}
{{- if $.Values.hostNetwork -}}
{{- fail (printf "Port %d is below 1024. Only root may listen there, and with hostNetwork=true the chart cannot lift that limit for the pod. Choose a port above 1023: add --set webhook.port=10250 or --set metrics.port=9090" .) -}}
{{- end -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Fails if the registry policy is a boundary between namespaces that any pod can cross: a pod that reaches the webhook can name any
namespace.
*/}}
{{- define "ecr-anywhere.checkCallers" -}}
{{- $isProtected := or (include "ecr-anywhere.callersAuthenticated" .) (include "ecr-anywhere.callersKeptOut" .) .Values.acceptAnyCaller -}}
{{- range .Values.registries -}}
{{- if not (or $isProtected (has "*" .namespaces)) -}}
{{- fail (printf "registries gives %s only to some namespaces (%s), but any pod that reaches the webhook could request the credentials of these namespaces. Let the webhook recognise the API server: on Kubernetes 1.36 or later it does so by default, and where Helm does not see the cluster's version, add --set callerProof.mode=enabled, or configure clientCA. Or keep other pods out: networkPolicy.enabled=true with networkPolicy.apiServers or networkPolicy.peers, or with networkPolicy.type=cilium, and without hostNetwork. docs/callers.md compares these ways. To accept any caller, add --set acceptAnyCaller=true" .host (join ", " .namespaces)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.ownRegistry.namespaces -}}
{{- if not (or $isProtected (has "*" .)) -}}
{{- fail (printf "ownRegistry.namespaces gives the webhook's own registry only to some namespaces (%s), but any pod that reaches the webhook could request the credentials of these namespaces. Let the webhook recognise the API server: on Kubernetes 1.36 or later it does so by default, and where Helm does not see the cluster's version, add --set callerProof.mode=enabled, or configure clientCA. Or keep other pods out: networkPolicy.enabled=true with networkPolicy.apiServers or networkPolicy.peers, or with networkPolicy.type=cilium, and without hostNetwork. docs/callers.md compares these ways. To accept any caller, add --set acceptAnyCaller=true" (join ", " .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.clientCA (not .Values.clientNames) -}}
{{- fail "clientCA is set without clientNames, so any certificate of that authority would be accepted, such as those of kubelets. Name the client of the API server: add --set clientNames={kube-apiserver}" -}}
{{- end -}}
{{- if and .Values.clientNames (not .Values.clientCA) -}}
{{- fail "clientNames is set without clientCA, so no certificate is required. Add --set-file clientCA=ca.crt, with the authority of the API server's client certificate" -}}
{{- end -}}
{{- with .Values.networkPolicy -}}
{{- if and .enabled (eq .type "kubernetes") (not .apiServers) (not .peers) -}}
{{- fail "networkPolicy.enabled is set without networkPolicy.apiServers and networkPolicy.peers, so the NetworkPolicy would let every pod reach the webhook. Name the addresses from which the API servers call it, such as --set networkPolicy.apiServers={10.0.0.0/28}, or the pods (docs/callers.md). With Cilium, add --set networkPolicy.type=cilium" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Mode self has its own default name, so that a change of the mode leaves the Secret of the other mode alone. */}}
{{- define "ecr-anywhere.tlsSecret" -}}
{{- if and .Values.tls.caBundle (ne .Values.tls.mode "provided") -}}
{{- fail (printf "tls.caBundle is set, but tls.mode is %s, which sets the caBundle itself. Leave tls.caBundle out, or add --set tls.mode=provided" .Values.tls.mode) -}}
{{- end -}}
{{ .Values.tls.secretName | default (printf "%s-%s" (include "ecr-anywhere.fullname" .) (ternary "self-tls" "tls" (eq .Values.tls.mode "self"))) }}
{{- end -}}

{{/*
The namespaces whose Secrets the refresher may read, as JSON; empty: every one. Whether they exist is checked only where Helm has a
cluster, which Argo CD does not give it.
*/}}
{{- define "ecr-anywhere.refresherNamespaces" -}}
{{- $namespaces := .Values.refresher.namespaces -}}
{{- if not $namespaces -}}
{{- fail "refresher.namespaces is empty. The refresher's credential is kept outside of the cluster, and it can read every Secret in these namespaces. Name them: add --set 'refresher.namespaces={team-a,team-b}'. For every namespace, also those that do not exist yet: --set 'refresher.namespaces={*}'" -}}
{{- end -}}
{{- if has "*" $namespaces -}}
{{- if gt (len $namespaces) 1 -}}
{{- fail "refresher.namespaces names * and others, and * is every namespace. Leave out * or the others" -}}
{{- end -}}
{{- $namespaces = list -}}
{{- end -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- range $namespaces -}}
{{- if not (lookup "v1" "Namespace" "" .) -}}
{{- fail (printf "refresher.namespaces names %s, but the cluster has no such namespace, and the chart must create a Role there. Create it (kubectl create namespace %s), or leave it out of refresher.namespaces." . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ $namespaces | toJson }}
{{- end -}}

{{- define "ecr-anywhere.caBundle" -}}
{{- $secret := include "ecr-anywhere.tlsSecret" . -}}
{{- $how := printf "It is the PEM certificate of the authority that signed the certificate in Secret %s, base64-encoded once; the API server trusts the webhook by it. Add --set tls.caBundle=\"$(base64 < ca.crt | tr -d '\\n')\". If the Secret holds it: --set tls.caBundle=\"$(kubectl -n %s get secret %s -o jsonpath='{.data.ca\\.crt}')\"" $secret .Release.Namespace $secret -}}
{{- if not .Values.tls.caBundle -}}
{{- fail (printf "tls.caBundle is missing. %s" $how) -}}
{{- end -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" (b64dec .Values.tls.caBundle)) -}}
{{- fail (printf "tls.caBundle is not a base64-encoded PEM certificate. %s" $how) -}}
{{- end -}}
{{ .Values.tls.caBundle }}
{{- end -}}
