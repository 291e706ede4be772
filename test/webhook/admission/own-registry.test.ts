// The webhook's own registry while its host is not known: which stored entries stay for it, and how the other registries of
// the namespace are served meanwhile. test/webhook/cold-replica.test.ts has the same with running webhooks.
import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { ANNOTATION } from '../../../contract/names.ts';
import { type AdmissionSettings, admission } from '../../../webhook/admission/admission.ts';
import { standIns } from '../../../webhook/admission/own-registry.ts';
import type { OwnedEntries } from '../../../webhook/admission/owned-entries.ts';
import { readPolicy } from '../../../webhook/admission/policy.ts';
import { EcrTokens } from '../../../webhook/aws/ecr-tokens.ts';
import { principalOf, type Registry } from '../../../webhook/aws/registries.ts';
import {
  annotated,
  applied,
  authsOf,
  type Change,
  HOST,
  HOUR,
  type Manifest,
  manifest,
  NOW,
  notesOf,
  reviewOf,
  THROTTLED,
  tokenFor,
} from '../support.ts';

const OWN: Registry = { source: { service: 'ecr', region: 'eu-central-1' } };
const OTHER = HOST.replace('123456789012', '210987654321');
const ROLE = { arn: 'arn:aws:iam::123456789012:role/narrow' };

describe('the entries that may be the own registry’s', () => {
  const entry = { text: '{}', expiresAt: NOW + HOUR, principal: '' };
  const ofRole = { ...entry, principal: principalOf({ role: ROLE }) };
  const named = (host: string): Registry => ({ ...OWN, host });

  test.each<{ what: string; stored: [string, typeof entry][]; others?: Registry[]; hosts: unknown[] }>([
    { what: 'nothing is stored', stored: [], hosts: [undefined] },
    { what: 'one of its region', stored: [[HOST, entry]], hosts: [HOST] },
    {
      what: 'two of its region',
      stored: [
        [HOST, entry],
        [OTHER, entry],
      ],
      hosts: [HOST, OTHER],
    },
    { what: 'one of a role', stored: [[HOST, ofRole]], hosts: [undefined] },
    {
      what: 'one of another region',
      stored: [[HOST.replace('eu-central-1', 'us-east-1'), entry]],
      hosts: [undefined],
    },
    { what: 'ECR Public', stored: [['public.ecr.aws', entry]], hosts: [undefined] },
    {
      what: 'one of another registry of the policy',
      stored: [
        [HOST, entry],
        [OTHER, entry],
      ],
      others: [named(OTHER)],
      hosts: [HOST],
    },
  ])('$what', ({ stored, others = [], hosts }) => {
    const map: OwnedEntries = new Map(stored);
    expect(standIns(OWN, map, others).map(({ host }) => host)).toEqual(hosts);
  });
});

let minted = 0;

/** A webhook in this process whose calls to ECR fail for the sources of `state.fails`. */
function webhook(document: object) {
  const state = { fails: new Set<string>(), now: NOW, calls: 0 };
  const nameOf = (role: string | undefined) => role ?? 'own';
  const tokens = new EcrTokens(
    async ({ role }) => {
      state.calls += 1;
      if (state.fails.has(nameOf(role?.arn))) throw THROTTLED;
      minted += 1;
      return tokenFor(HOST, state.now + 12 * HOUR, `${nameOf(role?.arn)}-${minted}`);
    },
    8_500,
    () => state.now,
  );
  const settings: AdmissionSettings = {
    policy: () => policy,
    tokens,
    logger: pino({ level: 'silent' }),
    now: () => state.now,
  };
  const policy = readPolicy(JSON.stringify(document), { region: 'eu-central-1' });
  const answer = admission(settings);
  return {
    state,
    async ask(change: Change): Promise<{ allowed: boolean; secret: Manifest; warnings: readonly string[] }> {
      const review = JSON.parse(JSON.stringify(reviewOf(change)));
      const { body } = await answer(review, { address: '127.0.0.1', arrivedAt: performance.now() });
      if (!('response' in body)) throw new Error(JSON.stringify(body));
      const { allowed, patch, warnings = [] } = body.response;
      const operations = JSON.parse(Buffer.from(patch ?? 'W10=', 'base64').toString());
      return { allowed, secret: applied(change.object, operations), warnings };
    },
  };
}

describe('beside another registry', () => {
  const document = {
    ownRegistry: { namespaces: ['*'] },
    registries: [{ host: OTHER, namespaces: ['team-a'], roleArn: ROLE.arn }],
  };
  const marked = (oldObject: Manifest, at: string): Change => ({
    object: annotated(oldObject, { [ANNOTATION.requestedAt]: at }),
    oldObject,
  });

  test('the other one is refreshed, and the stored entry stays, until the host is known', async () => {
    const { secret: stored } = await webhook(document).ask({ object: manifest() });
    expect(Object.keys(authsOf(stored)).sort()).toEqual([HOST, OTHER].sort());
    const cold = webhook(document);
    cold.state.fails.add('own');
    const { allowed, secret, warnings } = await cold.ask(marked(stored, '2026-03-01T11:00:00Z'));
    expect(allowed).toBe(true);
    expect(authsOf(secret)[HOST]).toEqual(authsOf(stored)[HOST]);
    expect(authsOf(secret)[OTHER]).not.toEqual(authsOf(stored)[OTHER]);
    expect(warnings).toEqual([expect.stringContaining(`${HOST}: kept`)]);
  });

  test('a Secret without an entry of its own stays due, and gets it without a warning of a removal', async () => {
    const other = { registries: document.registries };
    const { secret: stored } = await webhook(other).ask({ object: manifest() });
    const cold = webhook(document);
    cold.state.fails.add('own');
    const first = await cold.ask(marked(stored, '2026-03-01T11:00:00Z'));
    expect(Object.keys(authsOf(first.secret))).toEqual([OTHER]);
    expect(Date.parse(notesOf(first.secret).expiresAt ?? '')).toBeLessThanOrEqual(NOW);
    // The same again, with what is stored now.
    cold.state.now += 10_000;
    const second = await cold.ask(marked(first.secret, '2026-03-01T11:00:10Z'));
    expect(notesOf(second.secret).registries?.split(',').length).toBe(2);

    cold.state.fails.clear();
    cold.state.now += 10_000;
    const third = await cold.ask(marked(second.secret, '2026-03-01T11:00:20Z'));
    expect(third).toMatchObject({ allowed: true, warnings: [] });
    expect(Object.keys(authsOf(third.secret)).sort()).toEqual([HOST, OTHER].sort());
    expect(
      notesOf(third.secret)
        .registries?.match(/[^,=]+(?==)/g)
        ?.filter((name) => name.includes(' ')),
    ).toEqual([]);
  });

  test('a Secret that names only the other one does not need the own one', async () => {
    const cold = webhook(document);
    cold.state.fails.add('own');
    const object = annotated(manifest(), { [ANNOTATION.only]: OTHER });
    const { allowed, secret } = await cold.ask({ object });
    expect(allowed).toBe(true);
    expect(Object.keys(authsOf(secret))).toEqual([OTHER]);
  });
});

test('an entry for the own host with a narrower role is used instead of the own token, in every replica', async () => {
  const document = {
    ownRegistry: { namespaces: ['*'] },
    registries: [{ host: HOST, namespaces: ['team-a'], roleArn: ROLE.arn }],
  };
  const cold = webhook(document);
  for (const when of ['first', 'second']) {
    const { secret } = await cold.ask({ object: manifest() });
    expect(JSON.stringify(authsOf(secret)), when).toContain(ROLE.arn);
    expect(Object.keys(authsOf(secret))).toEqual([HOST]);
  }
  const failing = webhook(document);
  failing.state.fails.add('own');
  expect(await failing.ask({ object: manifest() })).toMatchObject({ allowed: false });
});

test('a forced request of a replica without a token makes one call', async () => {
  const cold = webhook({ ownRegistry: { namespaces: ['*'] } });
  const at = '2026-03-01T11:00:00Z';
  const object = annotated(manifest(), { [ANNOTATION.requestedAt]: at, [ANNOTATION.force]: at });
  expect(await cold.ask({ object })).toMatchObject({ allowed: true });
  expect(cold.state.calls).toBe(1);
});
