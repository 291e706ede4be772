// The last step of the suite: no log, metric, warning, report or CLI output of any test contains a credential, plain or
// encoded in base64 once or twice. Canaries prove that the search would find one.
import { generateKeyPairSync } from 'node:crypto';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { EVIDENCE_DIR, type Kind } from '../bed/evidence.ts';

/** The prefixes of all credentials that the tests' ECR and STS issue (test/bed/aws-endpoint.ts). */
const PREFIXES = ['ecr-token-', 'secret-access-key-', 'session-token-'];

/** A text in base64 at each of its three possible offsets in a longer text, without the characters that mix with it. */
function inBase64(text: string): string[] {
  return [0, 1, 2].map((offset) => {
    const encoded = Buffer.from(`${'.'.repeat(offset)}${text}`).toString('base64url');
    return encoded.slice(Math.ceil((offset * 8) / 6), Math.floor(((offset + text.length) * 8) / 6));
  });
}

const once = PREFIXES.flatMap(inBase64);
const literals = [...PREFIXES, ...once, ...once.flatMap(inBase64)];
const patterns = [
  // With a long rest: documents and file names may mention such a prefix.
  new RegExp(PREFIXES.map((word) => `${word}[\\w-]{16,}`).join('|')),
  new RegExp(literals.slice(PREFIXES.length).join('|')),
  // A ServiceAccount's token, or any other JWT with its signature.
  /eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}/,
  // An EKS token, and the URL that it contains.
  /k8s-aws-v1\.[\w-]{40,}|X-Amz-Signature=[0-9a-f]{16,}/,
  /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/,
  new RegExp(inBase64('PRIVATE KEY-----').join('|')),
];

/** Counts the patterns that match a text. */
function leaks(text: string): number {
  return patterns.filter((pattern) => pattern.test(text.replaceAll('+', '-').replaceAll('/', '_'))).length;
}

const dir = process.env[EVIDENCE_DIR] ?? '';

/** The evidence files of a kind that contain a credential. */
async function leakingFiles(kind: Kind): Promise<string[]> {
  const files = (await readdir(dir)).filter((file) => file.startsWith(`${kind}.`));
  const found = await Promise.all(
    files.map(async (file) => (leaks(await readFile(join(dir, file), 'utf8')) > 0 ? [file] : [])),
  );
  return found.flat();
}

const CANARY = `ecr-token-1-${'x'.repeat(64)}`;

test.each<{ kind: Kind; atLeast: number; sample: RegExp }>([
  { kind: 'log', atLeast: 10, sample: /"msg":"admission"/ },
  { kind: 'metrics', atLeast: 5, sample: /ecr_anywhere_admissions_total/ },
  { kind: 'warnings', atLeast: 1, sample: /Warning: / },
  { kind: 'report', atLeast: 10, sample: /"cluster"/ },
  { kind: 'cli', atLeast: 100, sample: /is registered\n {2}as system:serviceaccount:/ },
])('no $kind contains a credential', async ({ kind, atLeast, sample }) => {
  const files = (await readdir(dir)).filter((file) => file.startsWith(`${kind}.`));
  expect(
    files.length,
    'run the whole suite: this test reads what the other tests wrote',
  ).toBeGreaterThanOrEqual(atLeast);
  const texts = await Promise.all(files.map((file) => readFile(join(dir, file), 'utf8')));
  expect(texts.some((text) => sample.test(text))).toBe(true);
  expect(await leakingFiles(kind)).toEqual([]);

  const canary = `${kind}.canary`;
  await writeFile(join(dir, canary), `${texts[0]}\n${CANARY}\n${texts.at(-1)}`);
  expect(await leakingFiles(kind)).toEqual([canary]);
  await rm(join(dir, canary));
});

test('the searched evidence is not empty', async () => {
  const sizes = await Promise.all(
    (await readdir(dir)).map(async (file) => (await stat(join(dir, file))).size),
  );
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(100_000);
});

describe('the search finds', () => {
  const encode = (text: string) => Buffer.from(text).toString('base64');
  const config = JSON.stringify({ auths: { host: { password: CANARY, auth: encode(`AWS:${CANARY}`) } } });
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const jwt = [
    { alg: 'RS256', kid: 'x' },
    { sub: 'someone', exp: 1 },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .concat('s'.repeat(40))
    .join('.');

  test.each([
    ['a token', CANARY],
    ['a token with its user in base64', encode(`AWS:${CANARY}`)],
    ['the data of a Secret', encode(config)],
    ['a patch', encode(JSON.stringify([{ op: 'add', path: '/data', value: { config: encode(config) } }]))],
    ['the secret of a session', 'secret-access-key-0123456789abcdef'],
    ['the token of a session', `session-token-${'y'.repeat(40)}`],
    ['the token of a ServiceAccount', jwt],
    ['a token for EKS', `k8s-aws-v1.${encode(`https://sts.eu-central-1.amazonaws.com/?${CANARY}`)}`],
    [
      'a signed URL',
      `https://sts.amazonaws.com/?X-Amz-SignedHeaders=host&X-Amz-Signature=${'0a'.repeat(32)}`,
    ],
    ['a private key', pem],
    ['the data of a Secret with a private key', encode(pem)],
  ])('%s, in the middle of a line', (_, secret) => {
    for (const before of ['', 'a', 'ab', 'abc']) {
      expect(leaks(JSON.stringify({ level: 30, msg: `${before}${secret}`, more: 1 }))).toBeGreaterThan(0);
    }
  });

  test('nothing in text that only resembles a credential', () => {
    for (const harmless of [
      'the ecr-token- of a registry',
      'session-token-expired',
      'ecr-tokens.ts',
      '-----BEGIN CERTIFICATE-----',
      encode('{"auths":{}}'),
      'ecr-anywhere.centml.ai/fingerprint: I1Wiy_umWnTukRJy',
    ])
      expect(leaks(harmless), harmless).toBe(0);
  });
});
