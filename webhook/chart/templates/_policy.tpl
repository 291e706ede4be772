{{/*
The registry policy: the document that the webhook reads, and every problem for which it would refuse the document, so that
`helm template` and `helm upgrade` fail first. webhook/admission/policy.ts has the same rules: change both.
*/}}

{{/* The policy document. JSON is YAML; a part of it is invalid, while a part of block style could be another policy. */}}
{{- define "ecr-anywhere.policyDocument" -}}
{{- include "ecr-anywhere.checkPolicy" . -}}
{{- $document := dict "logLevel" .Values.logLevel "registries" (.Values.registries | default list) -}}
{{- with .Values.ownRegistry -}}
{{- if .namespaces -}}
{{- $own := dict "namespaces" .namespaces "sharedRole" (.sharedRole | default false) -}}
{{- with .account -}}{{- $own = set $own "account" . -}}{{- end -}}
{{- $document = set $document "ownRegistry" $own -}}
{{- end -}}
{{- end -}}
{{ $document | toPrettyJson }}
{{- end -}}

{{/* AWS' partitions as JSON. The first whose prefix matches a region is the region's. */}}
{{- define "ecr-anywhere.partitions" -}}
[
  {"name": "aws-cn", "prefix": "^cn-", "domain": "amazonaws.com.cn", "dualStackDomain": "on.amazonwebservices.com.cn"},
  {"name": "aws-us-gov", "prefix": "^us-gov-", "domain": "amazonaws.com", "dualStackDomain": "on.aws"},
  {"name": "aws-eusc", "prefix": "^eusc-", "domain": "amazonaws.eu", "dualStackDomain": "on.amazonwebservices.eu"},
  {"name": "aws-iso", "prefix": "^us-iso-", "domain": "c2s.ic.gov"},
  {"name": "aws-iso-b", "prefix": "^us-isob-", "domain": "sc2s.sgov.gov"},
  {"name": "aws-iso-e", "prefix": "^eu-isoe-", "domain": "cloud.adc-e.uk"},
  {"name": "aws-iso-f", "prefix": "^us-isof-", "domain": "csp.hci.ic.gov"},
  {"name": "aws", "prefix": "^", "domain": "amazonaws.com", "dualStackDomain": "on.aws"}
]
{{- end -}}

{{/* The partition of a region, as JSON. */}}
{{- define "ecr-anywhere.partitionOf" -}}
{{- $region := . -}}
{{- $found := dict -}}
{{- range include "ecr-anywhere.partitions" nil | fromJsonArray -}}
{{- if and (not $found) (regexMatch .prefix $region) -}}{{- $found = . -}}{{- end -}}
{{- end -}}
{{ $found | toJson }}
{{- end -}}

{{/* What an ECR host means, as JSON: service, region, partition. Empty object: it is not an ECR host. */}}
{{- define "ecr-anywhere.ecrHost" -}}
{{- $host := . -}}
{{- $parsed := dict -}}
{{- if has $host (list "public.ecr.aws" "ecr-public.aws.com") -}}
{{- $parsed = dict "service" "ecr-public" "region" "us-east-1" "partition" "aws" -}}
{{- else if regexMatch `^[0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z]{2,4}(-[a-z]+)+-[0-9]+\.[a-z0-9.-]+$` $host -}}
{{- $isDualStack := regexMatch `^[0-9]+\.dkr-` $host -}}
{{- $parts := splitList "." $host -}}
{{- $at := ternary 2 3 $isDualStack -}}
{{- $region := index $parts $at -}}
{{- $partition := include "ecr-anywhere.partitionOf" $region | fromJson -}}
{{- $domain := ternary ($partition.dualStackDomain | default "") $partition.domain $isDualStack -}}
{{- if eq $domain (slice $parts (add $at 1 | int) | join ".") -}}
{{- $parsed = dict "service" "ecr" "region" $region "partition" $partition.name -}}
{{- end -}}
{{- end -}}
{{ $parsed | toJson }}
{{- end -}}

{{/*
The webhook's AWS identity as far as the values tell it, as JSON: its role, and its account. Keys of a Secret take precedence
over a web identity.
*/}}
{{- define "ecr-anywhere.awsIdentity" -}}
{{- $aws := .Values.aws -}}
{{- $web := $aws.webIdentity.roleArn | default (index (.Values.serviceAccount.annotations | default dict) "eks.amazonaws.com/role-arn") | default "" -}}
{{- $role := $aws.assumeRole.roleArn | default $web -}}
{{- $account := "" -}}
{{- if and $role (or $aws.assumeRole.roleArn (not $aws.credentialsSecret)) -}}
{{- $account = index (splitList ":" $role) 4 -}}
{{- end -}}
{{ dict "roleArn" $role "account" $account | toJson }}
{{- end -}}

{{/* The host of ownRegistry; empty if the values do not tell its account. */}}
{{- define "ecr-anywhere.ownHost" -}}
{{- $account := .Values.ownRegistry.account | default (include "ecr-anywhere.awsIdentity" . | fromJson).account -}}
{{- $region := include "ecr-anywhere.region" . -}}
{{- if $account -}}
{{ printf "%s.dkr.ecr.%s.%s" $account $region (include "ecr-anywhere.partitionOf" $region | fromJson).domain }}
{{- end -}}
{{- end -}}

{{/* Whether a pattern matches every name that another one matches: it matches the other one's text. */}}
{{- define "ecr-anywhere.isWider" -}}
{{- if regexMatch (printf "^%s$" (.wider | replace "*" ".*")) .glob -}}true{{- end -}}
{{- end -}}

{{/* Fails if the webhook would refuse the policy, and names every problem. */}}
{{- define "ecr-anywhere.checkPolicy" -}}
{{- $region := include "ecr-anywhere.region" . -}}
{{- $partition := (include "ecr-anywhere.partitionOf" $region | fromJson).name -}}
{{- $identity := include "ecr-anywhere.awsIdentity" . | fromJson -}}
{{- $own := .Values.ownRegistry -}}
{{- if not (or .Values.registries $own.namespaces) -}}
{{- fail "ownRegistry.namespaces and registries are both empty, so the webhook would give no namespace any credentials. To give the registry of the webhook's own AWS account to every enabled namespace, add --set 'ownRegistry.namespaces={*}'; to some namespaces, list their names. Other registries: docs/registries.md" -}}
{{- end -}}
{{- $problems := list -}}
{{- $rules := list -}}
{{- range $index, $entry := .Values.registries -}}
{{- $where := printf "registries[%d]" $index -}}
{{- $host := include "ecr-anywhere.ecrHost" $entry.host | fromJson -}}
{{- if not $host -}}
{{- $problems = append $problems (printf "%s.host: %s is not an ECR host. Use one without scheme and path, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com or public.ecr.aws" $where $entry.host) -}}
{{- else -}}
{{- $where = printf "%s (%s)" $where $entry.host -}}
{{- $role := $entry.roleArn | default "" -}}
{{- if ne $host.partition $partition -}}
{{- $problems = append $problems (printf "%s: is in the partition %s, and the webhook's identity is in %s (aws.region is %s). An identity of one partition has no access in another" $where $host.partition $partition $region) -}}
{{- end -}}
{{- if and $role (ne (index (splitList ":" $role) 1) $host.partition) -}}
{{- $problems = append $problems (printf "%s.roleArn: is in another partition than the registry (%s)" $where $host.partition) -}}
{{- end -}}
{{- if and $entry.externalId (not $role) -}}
{{- $problems = append $problems (printf "%s.externalId: needs a roleArn" $where) -}}
{{- end -}}
{{- $principal := ternary "" $role (eq $role $identity.roleArn) -}}
{{- $rules = append $rules (dict "where" $where "host" $entry.host "key" (ternary (printf "%s %s" $host.region $principal) "" (eq $host.service "ecr")) "region" $host.region "namespaces" $entry.namespaces "role" $role "externalId" ($entry.externalId | default "") "sharedRole" ($entry.sharedRole | default false)) -}}
{{- end -}}
{{- end -}}
{{- if $own.namespaces -}}
{{- $host := include "ecr-anywhere.ownHost" . -}}
{{- $where := ternary (printf "ownRegistry (%s)" $host) "ownRegistry" (ne $host "") -}}
{{- $rules = append $rules (dict "where" $where "host" $host "key" (printf "%s " $region) "region" $region "namespaces" $own.namespaces "role" "" "externalId" "" "sharedRole" ($own.sharedRole | default false)) -}}
{{- end -}}
{{- $problems = concat $problems (include "ecr-anywhere.shadowedRules" $rules | fromJsonArray) (include "ecr-anywhere.sharedPrincipals" $rules | fromJsonArray) -}}
{{- if $problems -}}
{{- fail (printf "The registry policy is invalid, and the webhook would refuse it: %s." (join "; " $problems)) -}}
{{- end -}}
{{- end -}}

{{/* The problems of rules that are never the first for their host, as a JSON array. */}}
{{- define "ecr-anywhere.shadowedRules" -}}
{{- $problems := list -}}
{{- $byHost := dict -}}
{{- range . -}}
{{- $rule := . -}}
{{- $earlier := index $byHost .host | default list -}}
{{- $by := "" -}}
{{- if .host -}}
{{- range $other := $earlier -}}
{{- $covers := true -}}
{{- range $glob := $rule.namespaces -}}
{{- $isCovered := false -}}
{{- range $other.namespaces -}}
{{- if include "ecr-anywhere.isWider" (dict "wider" . "glob" $glob) -}}{{- $isCovered = true -}}{{- end -}}
{{- end -}}
{{- if not $isCovered -}}{{- $covers = false -}}{{- end -}}
{{- end -}}
{{- if and $covers (not $by) -}}{{- $by = $other.where -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $by -}}
{{- $problems = append $problems (printf "%s: is never used, because %s comes first for all its namespaces" $rule.where $by) -}}
{{- end -}}
{{- $byHost = set $byHost $rule.host (append $earlier $rule) -}}
{{- end -}}
{{ $problems | toJson }}
{{- end -}}

{{/* The problems of different namespaces that would get tokens of one principal, as a JSON array. */}}
{{- define "ecr-anywhere.sharedPrincipals" -}}
{{- $problems := list -}}
{{- $groups := dict -}}
{{- range . -}}
{{- if .key -}}{{- $groups = set $groups .key (append (index $groups .key | default list) .) -}}{{- end -}}
{{- end -}}
{{- range $key := keys $groups | sortAlpha -}}
{{- $group := index $groups $key -}}
{{- $first := first $group -}}
{{- $role := $first.role | default "the webhook's own identity" -}}
{{- $sets := list -}}
{{- $externalIds := list -}}
{{- $where := list -}}
{{- $usages := list -}}
{{- $isConfirmed := true -}}
{{- range $group -}}
{{- $sets = append $sets (.namespaces | uniq | sortAlpha | join " ") -}}
{{- $externalIds = append $externalIds .externalId -}}
{{- $where = append $where .where -}}
{{- $usages = append $usages (printf "%s for %s" .where (join ", " .namespaces)) -}}
{{- if not .sharedRole -}}{{- $isConfirmed = false -}}{{- end -}}
{{- end -}}
{{- if gt (len (uniq $externalIds)) 1 -}}
{{- $problems = append $problems (printf "%s: use %s with different external ids; give all of them the same one" (join " and " $where) $role) -}}
{{- end -}}
{{- if and (gt (len (uniq $sets)) 1) (not $isConfirmed) -}}
{{- $problems = append $problems (printf "%s: have different namespaces and the same principal, %s in %s. A token opens every registry that its principal may read, so that each of these namespaces could read the images of the others. Give each entry of registries its own roleArn or all the same namespaces; or, to share on purpose, set sharedRole: true in all of them" (join " and " $usages) $role $first.region) -}}
{{- end -}}
{{- end -}}
{{ $problems | toJson }}
{{- end -}}
