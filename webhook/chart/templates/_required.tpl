{{/* Values without a default: what is missing, and how to get it. */}}

{{- define "ecr-anywhere.image" -}}
{{- $image := .Values.image -}}
{{- if not $image.repository -}}
{{- fail "image.repository is missing: none is published. Build the image of webhook/Dockerfile and push it to a registry that the cluster can already pull from (in a private ECR it would wait for itself), then add --set image.repository=registry.example.com/ecr-anywhere" -}}
{{- end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.region" -}}
{{- if not .Values.aws.region -}}
{{- fail "aws.region is missing: add --set aws.region=eu-central-1, or whichever region your registry is in" -}}
{{- end -}}
{{ .Values.aws.region }}
{{- end -}}

{{- define "ecr-anywhere.credentialsSecret" -}}
{{- if and .Values.aws.credentialsSecret .Values.aws.webIdentity.roleArn -}}
{{- fail "aws.credentialsSecret and aws.webIdentity.roleArn are both set, and the keys of the Secret would win unnoticed: leave one of them empty" -}}
{{- end -}}
{{- if and .Values.aws.webIdentity.tokenFile (not .Values.aws.webIdentity.roleArn) -}}
{{- fail "aws.webIdentity.tokenFile is set, and there is no role to assume with it: add --set aws.webIdentity.roleArn=arn:aws:iam::123456789012:role/ecr-anywhere" -}}
{{- end -}}
{{- if and .Values.aws.assumeRole.externalId (not .Values.aws.assumeRole.roleArn) -}}
{{- fail "aws.assumeRole.externalId is set, and there is no role to assume with it: add --set aws.assumeRole.roleArn=arn:aws:iam::123456789012:role/ecr-anywhere" -}}
{{- end -}}
{{ .Values.aws.credentialsSecret }}
{{- end -}}

{{/* Not empty where a port is one that only root may listen on, unless the pod's own network is told otherwise. */}}
{{- define "ecr-anywhere.privilegedPort" -}}
{{- $ports := list (int .Values.webhook.port) -}}
{{- with int .Values.metrics.port -}}{{- $ports = append $ports . -}}{{- end -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail (printf "webhook.port and metrics.port are both %d: give one of them another" (first $ports)) -}}
{{- end -}}
{{- range $ports -}}
{{- if lt . 1024 -}}
{{- if $.Values.hostNetwork -}}
{{- fail (printf "port %d is one that only root may listen on, and on the node's network (hostNetwork) that cannot be changed: choose one above 1023, such as 10250" .) -}}
{{- end -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A name of its own in mode self: whoever comes from another mode keeps that Secret. */}}
{{- define "ecr-anywhere.tlsSecret" -}}
{{- if and .Values.tls.caBundle (ne .Values.tls.mode "provided") -}}
{{- fail (printf "tls.caBundle is set, and tls.mode is %s, which needs none: leave it out, or add --set tls.mode=provided" .Values.tls.mode) -}}
{{- end -}}
{{ .Values.tls.secretName | default (printf "%s-%s" (include "ecr-anywhere.fullname" .) (ternary "self-tls" "tls" (eq .Values.tls.mode "self"))) }}
{{- end -}}

{{/* Roles go into namespaces that are there. Nothing is said where helm does not ask the cluster, as with Argo CD. */}}
{{- define "ecr-anywhere.refresherNamespaces" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- range .Values.refresher.namespaces -}}
{{- if not (lookup "v1" "Namespace" "" .) -}}
{{- fail (printf "refresher.namespaces names %s, and there is no such namespace: kubectl create namespace %s, or leave it out" . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ecr-anywhere.caBundle" -}}
{{- $secret := include "ecr-anywhere.tlsSecret" . -}}
{{- $how := printf "the PEM certificate of the authority that signed the certificate in Secret %s, base64-encoded once: add --set tls.caBundle=\"$(base64 < ca.crt | tr -d '\\n')\". Where the Secret holds it: kubectl -n %s get secret %s -o jsonpath='{.data.ca\\.crt}'" $secret .Release.Namespace $secret -}}
{{- if not .Values.tls.caBundle -}}
{{- fail (printf "tls.caBundle is missing: %s" $how) -}}
{{- end -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" (b64dec .Values.tls.caBundle)) -}}
{{- fail (printf "tls.caBundle is not what it should be: %s" $how) -}}
{{- end -}}
{{ .Values.tls.caBundle }}
{{- end -}}
