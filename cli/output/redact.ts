// Credentials in other programs' words: AWS, API servers, proxies and plugins may repeat what they were sent, and what they
// say is shown to people. Known values go, and so does whatever looks like one.

/** What credentials look like, and what stands in their place: others' words may repeat what they were sent. */
const CREDENTIALS: readonly (readonly [RegExp, string])[] = [
  // In a URL, a user's password, or a token in its place.
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
  // A secret access key of AWS, and base64 as long as a session's token; files and names have other characters, too.
  [/(?<![\w/+=.:-])(?=[\w/+]*\d)(?=[\w/+]*[A-Z])(?=[\w/+]*[a-z])[A-Za-z\d/+]{40}(?![\w/+=.-])/g, '…'],
  [/(?<![\w/+=.:-])[A-Za-z\d/+]{100,}=*/g, '…'],
  // Whatever is longer than any name or identifier of a cluster, an account, a request; but for those that
  // CloudFormation makes: of the stack, the construct and at random.
  [
    /(?<![\w/+=.:-])(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])(?![\w-]*-[\w-]*-[\w-]*-)(?!\w+-\w+-\w{12,13}(?![\w+/=-]))[\w+=-]{40,}/g,
    '…',
  ],
];

/** The values of this process that nobody else is to see. */
const secrets = new Set<string>();

/** Has a value never be shown. @param value shorter ones than eight characters are in too many words */
export function addSecret(value: string | undefined): void {
  if (value === undefined || value.length < 8) return;
  for (const form of [value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1)])
    secrets.add(form);
}

/** A text with the credentials of this process, and all that looks like one, taken out. */
export function redact(text: string): string {
  let clean = text;
  for (const secret of secrets) clean = clean.replaceAll(secret, '…');
  for (const [pattern, instead] of CREDENTIALS) clean = clean.replaceAll(pattern, instead);
  return clean;
}
