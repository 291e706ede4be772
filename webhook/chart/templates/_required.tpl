{{/* Values without a default: what is missing, and how to get it. */}}

{{- define "ecr-anywhere.image" -}}
{{- $image := .Values.image -}}
{{- if not $image.repository -}}
{{- fail "image.repository is missing: build and push the image of webhook/Dockerfile, then add --set image.repository=registry.example.com/ecr-anywhere" -}}
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

{{- define "ecr-anywhere.tlsSecret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "ecr-anywhere.fullname" .)) }}
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
