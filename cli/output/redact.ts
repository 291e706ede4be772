// Removes credentials from text of AWS, API servers, proxies and plugins, which may quote the request. Removes known values,
// and everything that looks like a credential.

/** Patterns of credentials, and their replacements. */
const CREDENTIALS: readonly (readonly [RegExp, string])[] = [
  // In a URL: a user's password, or a token.
  [/(\b[a-z][a-z\d+.-]*:\/\/)[^\s/?#@"']+@/gi, '$1…@'],
  [/(\bX-Amz-(?:Signature|Credential|Security-Token)=)[^\s&"']+/gi, '$1…'],
  [
    /(\b(?:proxy-)?authorization["']?\s*[:=]\s*["']?)(?:(?:bearer|basic|negotiate|digest)\s+)?[^\s"',;}]+/gi,
    '$1…',
  ],
  [/(\b(?:bearer|basic)\s+)(?=[\w.~+/=-]*[\d=])[\w.~+/=-]{8,}/gi, '$1…'],
  [
    /(\b(?:x-amz-security-token|(?:aws_?)?(?:secret_?access_?key|session_?token)|client-key-data|password|token)["']?\s*[:=]\s*["']?)(?=[^\s"',;&}]*\d)[^\s"',;&}]{8,}/gi,
    '$1…',
  ],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/gs, '…'],
  [/\beyJ[\w-]{8,}\.[\w-]*\.?[\w-]*/g, '…'],
  [/\bk8s-aws-v1\.[\w-]+/g, '…'],
  // A secret access key of AWS, and base64 as long as a session token. Paths and names contain other characters, too.
  [/(?<![\w/+=.:-])(?=[\w/+]*\d)(?=[\w/+]*[A-Z])(?=[\w/+]*[a-z])[A-Za-z\d/+]{40}(?![\w/+=.-])/g, '…'],
  [/(?<![\w/+=.:-])[A-Za-z\d/+]{100,}=*/g, '…'],
  // Anything longer than a name or identifier of a cluster, account or request, except names that CloudFormation
  // generates: stack, construct and a random suffix.
  [
    /(?<![\w/+=.:-])(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])(?![\w-]*-[\w-]*-[\w-]*-)(?!\w+-\w+-\w{12,13}(?![\w+/=-]))[\w+=-]{40,}/g,
    '…',
  ],
];

/** Credentials that this process knows. */
const secrets = new Set<string>();

/** Registers a credential for removal. @param value ignored if shorter than eight characters, which words would match */
export function addSecret(value: string | undefined): void {
  if (value === undefined || value.length < 8) return;
  for (const form of [value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1)])
    secrets.add(form);
}

/** Replaces all credentials in a text. */
export function redact(text: string): string {
  let clean = text;
  for (const secret of secrets) clean = clean.replaceAll(secret, '…');
  for (const [pattern, instead] of CREDENTIALS) clean = clean.replaceAll(pattern, instead);
  return clean;
}
