// The operator's policy document: what it says, every mistake in it that is named, and who is entitled to what.
import { describe, expect, test } from 'vitest';
import { type Identity, type Policy, readPolicy } from '../../../webhook/admission/policy.ts';

const REGION = 'eu-central-1';
const HOST = `123456789012.dkr.ecr.${REGION}.amazonaws.com`;
const OTHER = `210987654321.dkr.ecr.${REGION}.amazonaws.com`;
const ELSEWHERE = '123456789012.dkr.ecr.us-east-1.amazonaws.com';
const PUBLIC = 'public.ecr.aws';
const role = (name: string, partition = 'aws') => `arn:${partition}:iam::123456789012:role/${name}`;

const policyOf = (registries: unknown, identity: Partial<Identity> = {}): Policy =>
  readPolicy(JSON.stringify({ registries }), { region: REGION, ...identity });

/** The problems that are named, each by itself. */
function problemsOf(registries: unknown, identity: Partial<Identity> = {}): string[] {
  try {
    policyOf(registries, identity);
  } catch (error) {
    return (error as Error).message.split(/; (?=registries\[)/);
  }
  return [];
}

const hostsOf = (policy: Policy, namespace: string) => policy.entitlements(namespace).map(({ host }) => host);

describe('a valid document', () => {
  test('is read from YAML with all its fields', () => {
    const policy = readPolicy(
      `
logLevel: warn
registries:
  - host: ${HOST}
    namespaces: ["*"]
  - host: ${ELSEWHERE}
    namespaces: [team-a, team-b-*]
    roleArn: ${role('path/to/pull')}
    externalId: cluster-1
    sharedRole: true
`,
      { region: REGION },
    );
    expect(policy.logLevel).toBe('warn');
    expect(policy.registries).toEqual([
      {
        host: HOST,
        source: { service: 'ecr', region: REGION, role: undefined, fips: false, dualStack: false },
      },
      {
        host: ELSEWHERE,
        source: {
          service: 'ecr',
          region: 'us-east-1',
          role: { arn: role('path/to/pull'), externalId: 'cluster-1' },
          fips: false,
          dualStack: false,
        },
      },
    ]);
  });

  test.each([
    '',
    '# nothing yet',
    '{}',
    '---',
    'logLevel: debug',
    'registries: []',
    'registries:\n#  - host: the last one',
    'ownRegistry:',
    'ownRegistry: {}',
    'ownRegistry:\n  namespaces:\n',
    'ownRegistry: {namespaces: []}',
    `ownRegistry: {account: "123456789012"}`,
  ])('entitles no namespace if it names none: %j', (text) => {
    const { registries, entitlements, isInvalid } = readPolicy(text, {
      region: REGION,
      account: '123456789012',
    });
    expect({ registries, isInvalid }).toEqual({ registries: [], isInvalid: undefined });
    for (const namespace of ['any', 'team-a', 'default']) expect(entitlements(namespace)).toEqual([]);
  });

  test('every part of a document that the chart renders is invalid, empty or complete', () => {
    const document = {
      logLevel: 'info',
      ownRegistry: { namespaces: ['team-a-*'], sharedRole: false },
      registries: [{ host: OTHER, namespaces: ['team-bc', 'team-b-*'], roleArn: role('b') }],
    };
    const text = `${JSON.stringify(document, null, 2)}\n`;
    const entitled = Array.from(text, (_, length) => {
      try {
        return readPolicy(text.slice(0, length), { region: REGION }).registries.length;
      } catch {
        return 'invalid';
      }
    });
    const isWhole = (length: number) => length >= text.trimEnd().length;
    expect(entitled).toEqual(
      entitled.map((_, length) => (length === 0 ? 0 : isWhole(length) ? 2 : 'invalid')),
    );
  });

  test('uses the FIPS or dual-stack endpoint for all hosts of a source if one of them has it', () => {
    const fips = '123456789012.dkr.ecr-fips.us-east-1.amazonaws.com';
    const dual = '123456789012.dkr-ecr.us-east-1.on.aws';
    const { registries } = policyOf([
      ...[ELSEWHERE, fips, dual].map((host) => ({ host, namespaces: ['*'] })),
      { host: ELSEWHERE.replace('12345', '54321'), namespaces: ['*'], roleArn: role('own') },
      { host: dual.replace('us-east-1', REGION), namespaces: ['*'] },
    ]);
    const both = { fips: true, dualStack: true };
    expect(registries.map(({ source: { fips, dualStack } }) => ({ fips, dualStack }))).toEqual([
      both,
      both,
      both,
      { fips: false, dualStack: false },
      { fips: false, dualStack: true },
    ]);
  });

  test('does not assume the role that the webhook already has', () => {
    const [registry] = policyOf([{ host: HOST, namespaces: ['*'], roleArn: role('own') }], {
      roleArn: role('own'),
    }).registries;
    expect(registry?.source.role).toBeUndefined();
  });
});

describe('an invalid document', () => {
  const entry = { host: HOST, namespaces: ['team-a'] };
  const at = `registries[0] (${HOST})`;

  test.each<{ what: string; entry: unknown; says: string }>([
    { what: 'no host', entry: { namespaces: ['a'] }, says: 'registries[0].host: Invalid input' },
    {
      what: 'a host with a scheme',
      entry: { ...entry, host: `https://${HOST}` },
      says: 'registries[0].host: is not an ECR host: use one without scheme and path',
    },
    { what: 'another registry', entry: { ...entry, host: 'ghcr.io' }, says: 'is not an ECR host' },
    {
      what: 'no namespaces',
      entry: { host: HOST },
      says: 'registries[0].namespaces: list the namespaces that get it, such as [team-a, "team-b-*"], or ["*"] for all',
    },
    {
      what: 'an empty list of them',
      entry: { ...entry, namespaces: [] },
      says: 'list the namespaces that get it',
    },
    { what: 'one as a text', entry: { ...entry, namespaces: 'team-a' }, says: 'registries[0].namespaces: ' },
    {
      what: 'no name of a namespace',
      entry: { ...entry, namespaces: ['ok', 'Team_A'] },
      says: 'registries[0].namespaces[1]: is not the name of a namespace (* stands for any characters)',
    },
    { what: 'a number', entry: { ...entry, externalId: 12345 }, says: 'registries[0].externalId: ' },
    {
      what: 'no role',
      entry: { ...entry, roleArn: 'pull' },
      says: 'registries[0].roleArn: is not the ARN of a role: use one such as',
    },
    {
      what: 'a user',
      entry: { ...entry, roleArn: 'arn:aws:iam::123456789012:user/pull' },
      says: 'is not the ARN of a role',
    },
    {
      what: 'an external id that STS would refuse',
      entry: { ...entry, roleArn: role('a'), externalId: 'a b' },
      says: 'registries[0].externalId: is not an external id',
    },
    {
      what: 'an external id without a role',
      entry: { ...entry, externalId: 'cluster-1' },
      says: `${at}.externalId: needs a roleArn`,
    },
    {
      what: 'a misspelt field',
      entry: { ...entry, rolearn: role('a') },
      says: 'registries[0]: Unrecognized key: "rolearn"',
    },
    { what: 'no object', entry: HOST, says: 'registries[0]: Invalid input: expected object' },
    {
      what: 'another partition',
      entry: { ...entry, host: '123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn' },
      says: "is in the partition aws-cn, and the webhook's identity is in aws (its region is eu-central-1)",
    },
    {
      what: 'a role of another partition',
      entry: { ...entry, roleArn: role('a', 'aws-cn') },
      says: `${at}.roleArn: is in another partition than the registry (aws)`,
    },
  ])('names the problem and its place: $what', ({ entry: wrong, says }) => {
    const problems = problemsOf([wrong]);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(says);
  });

  test.each<{ text: string; says: RegExp }>([
    { text: 'registries: [', says: /at line 1, column 14$/ },
    { text: 'registries:\n  - host: a\n    host: b', says: /^Map keys must be unique at line 3, column 5$/ },
    { text: 'registries: {}', says: /^registries: .*expected array/ },
    { text: '- host: a', says: /expected object/ },
    { text: 'just a text', says: /expected object/ },
    { text: 'logLevel: loud', says: /^logLevel: .*debug/ },
    { text: 'registry: []', says: /^Unrecognized key: "registry"$/ },
    { text: `a: &a [1]\n${Array.from({ length: 200 }, (_, i) => `b${i}: *a`).join('\n')}`, says: /alias/ },
  ])('names the problem: $says', ({ text, says }) => {
    expect(() => readPolicy(text, { region: REGION })).toThrow(says);
  });

  test('names all problems together', () => {
    const text = JSON.stringify({
      loglevel: 'info',
      registries: [
        { host: 'ghcr.io' },
        { host: HOST, namespaces: ['a'] },
        { host: OTHER, namespaces: ['b'] },
        { host: ELSEWHERE, namespaces: ['A'], roleArn: 'x' },
      ],
    });
    const message = (() => {
      try {
        readPolicy(text, { region: REGION });
        return '';
      } catch (error) {
        return (error as Error).message;
      }
    })();
    for (const part of [
      'Unrecognized key: "loglevel"',
      'registries[0].host: ',
      'registries[0].namespaces: ',
      'registries[3].namespaces[0]: ',
      'registries[3].roleArn: ',
      `registries[1] (${HOST}) for a and registries[2] (${OTHER}) for b: have different namespaces`,
    ])
      expect(message).toContain(part);
  });
});

describe('an entry that is never the first for its host', () => {
  const problems = (...sets: string[][]) =>
    problemsOf(sets.map((namespaces) => ({ host: HOST, namespaces, sharedRole: true })));

  test.each([
    { first: ['*'], second: ['team-a'] },
    { first: ['*'], second: ['*'] },
    { first: ['team-*', 'shop'], second: ['shop', 'team-a', 'team-b-*'] },
    { first: ['a*b'], second: ['axb', 'a*b'] },
  ])('is a problem: $second after $first', ({ first, second }) => {
    expect(problems(first, second)).toEqual([
      `registries[1] (${HOST}): is never used, because registries[0] (${HOST}) comes first for all its namespaces`,
    ]);
  });

  test.each([
    { first: ['team-a'], second: ['*'] },
    { first: ['team-*'], second: ['team-a', 'shop'] },
    { first: ['a*'], second: ['*a'] },
  ])('is no problem: $second after $first', ({ first, second }) => {
    expect(problems(first, second)).toEqual([]);
  });
});

describe('namespaces with different registries of one principal', () => {
  const a = { host: HOST, namespaces: ['team-a'] };
  const b = { host: OTHER, namespaces: ['team-b'] };
  const shared = { sharedRole: true };

  test.each<{ what: string; entries: object[]; principal: string; identity?: Partial<Identity> }>([
    { what: "the webhook's own", entries: [a, b], principal: "the webhook's own identity" },
    {
      what: 'a role',
      entries: [a, b].map((entry) => ({ ...entry, roleArn: role('x') })),
      principal: role('x'),
    },
    {
      what: 'only one entry sets sharedRole',
      entries: [{ ...a, ...shared }, b],
      principal: "the webhook's",
    },
    {
      what: "a role that is the webhook's own",
      entries: [a, { ...b, roleArn: role('own') }],
      principal: "the webhook's own identity",
      identity: { roleArn: role('own') },
    },
    {
      what: 'more namespaces',
      entries: [a, { ...b, namespaces: ['team-a', 'team-b'] }],
      principal: "the webhook's",
    },
    { what: 'a pattern', entries: [a, { ...b, namespaces: ['team-*'] }], principal: "the webhook's" },
    {
      what: 'two names of one registry',
      entries: [a, { host: `123456789012.dkr-ecr.${REGION}.on.aws`, namespaces: ['team-b'] }],
      principal: "the webhook's",
    },
  ])('are a problem: $what', ({ entries, principal, identity }) => {
    const message = problemsOf(entries, identity).join('; ');
    expect(message).toContain(`registries[0] (${HOST}) for team-a and registries[1] (`);
    expect(message).toContain(`have different namespaces and the same principal, ${principal}`);
    expect(message).toContain(`in ${REGION}. A token opens every registry that its principal may read`);
    expect(message).toMatch(
      /Give each entry of registries its own roleArn .* set sharedRole: true in all of them$/,
    );
  });

  test.each<{ what: string; entries: object[] }>([
    { what: 'all entries set sharedRole', entries: [a, b].map((entry) => ({ ...entry, ...shared })) },
    { what: 'the same namespaces', entries: [a, { ...b, namespaces: ['team-a'] }] },
    {
      what: 'the same in another order',
      entries: [
        { ...a, namespaces: ['team-a', 'x-*'] },
        { ...b, namespaces: ['x-*', 'team-a', 'team-a'] },
      ],
    },
    { what: 'a role of its own', entries: [a, { ...b, roleArn: role('x') }] },
    {
      what: 'two roles',
      entries: [
        { ...a, roleArn: role('x') },
        { ...b, roleArn: role('y') },
      ],
    },
    { what: 'another region', entries: [a, { host: ELSEWHERE, namespaces: ['team-b'] }] },
    { what: 'ECR Public', entries: [a, { host: PUBLIC, namespaces: ['team-b'] }] },
    {
      what: 'ECR Public by two roles',
      entries: [
        { host: PUBLIC, namespaces: ['team-a'] },
        { host: 'ecr-public.aws.com', namespaces: ['team-b'] },
      ],
    },
  ])('are no problem: $what', ({ entries }) => {
    expect(problemsOf(entries)).toEqual([]);
  });

  test('three entries are one problem', () => {
    const c = { host: HOST.replace('1234', '4321'), namespaces: ['team-c'] };
    expect(problemsOf([a, b, c])).toHaveLength(1);
  });

  test('one role with two external ids is a problem', () => {
    const entries = [HOST, OTHER].map((host, index) => ({
      host,
      namespaces: ['*'],
      roleArn: role('x'),
      externalId: `id-${index}`,
    }));
    expect(problemsOf(entries).join('; ')).toContain(
      `use ${role('x')} with different external ids; give all of them the same one`,
    );
  });
});

describe("the webhook's own registry", () => {
  const ACCOUNT = '123456789012';
  const read = (document: object, identity: Partial<Identity> = {}) =>
    readPolicy(JSON.stringify(document), { region: REGION, ...identity });
  const own = (more: object = {}) => ({ ownRegistry: { namespaces: ['team-a', 'shop-*'], ...more } });
  const source = { service: 'ecr', region: REGION };

  test('is given to the namespaces that the policy names, and to no other', () => {
    const policy = read(own());
    expect(policy.registries).toMatchObject([{ source }]);
    for (const namespace of ['team-a', 'shop-', 'shop-x'])
      expect(policy.entitlements(namespace)).toMatchObject([{ source }]);
    for (const namespace of ['team-b', 'shop', 'default']) expect(policy.entitlements(namespace)).toEqual([]);
  });

  test.each([
    { what: 'neither a setting nor the identity tells the account', host: undefined },
    { what: "the account is that of the identity's role", identity: { account: ACCOUNT }, host: HOST },
    { what: 'the account is explicit', more: { account: ACCOUNT }, host: HOST },
    {
      what: 'an explicit account is not that of the role',
      more: { account: '210987654321' },
      identity: { account: ACCOUNT },
      host: OTHER,
    },
    {
      what: 'the region is in China',
      identity: { account: ACCOUNT, region: 'cn-north-1' },
      host: `${ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn`,
    },
  ])('has the host $host: $what', ({ more = {}, identity = {}, host }) => {
    expect(hostsOf(read(own(more), identity), 'team-a')).toEqual([host]);
  });

  test('comes after the entries, so that one can give its host with a narrower role', () => {
    const registries = [{ host: HOST, namespaces: ['team-a'], roleArn: role('narrow') }];
    const policy = read({ ...own(), registries }, { account: ACCOUNT });
    const roles = (namespace: string) => policy.entitlements(namespace).map(({ source }) => source.role?.arn);
    expect([roles('team-a'), roles('shop-a')]).toEqual([[role('narrow')], [undefined]]);
    expect(hostsOf(policy, 'team-a')).toEqual([HOST]);
  });

  test.each([
    { what: 'an account of other digits', document: own({ account: '1234' }), says: 'ownRegistry.account: ' },
    {
      what: 'an account as a number',
      document: own({ account: 123456789012 }),
      says: 'ownRegistry.account: ',
    },
    {
      what: 'an unknown field',
      document: own({ host: HOST }),
      says: 'ownRegistry: Unrecognized key: "host"',
    },
    { what: 'a role', document: own({ roleArn: role('x') }), says: 'Unrecognized key: "roleArn"' },
    {
      what: 'one as a text',
      document: { ownRegistry: { namespaces: '*' } },
      says: 'ownRegistry.namespaces: ',
    },
    {
      what: 'a name that no namespace has',
      document: { ownRegistry: { namespaces: ['Team'] } },
      says: 'ownRegistry.namespaces[0]: is not the name of a namespace',
    },
    {
      what: 'it is never used',
      document: { ...own(), registries: [{ host: HOST, namespaces: ['*'], roleArn: role('x') }] },
      says: `ownRegistry (${HOST}): is never used, because registries[0] (${HOST}) comes first`,
    },
    {
      what: 'an entry of its principal has other namespaces',
      document: { ...own(), registries: [{ host: OTHER, namespaces: ['team-b'] }] },
      says: `registries[0] (${OTHER}) for team-b and ownRegistry (${HOST}) for team-a, shop-*: have different namespaces and the same principal`,
    },
    {
      what: 'only it sets sharedRole',
      document: { ...own({ sharedRole: true }), registries: [{ host: OTHER, namespaces: ['team-b'] }] },
      says: 'set sharedRole: true in all of them',
    },
  ])('is a problem: $what', ({ document, says }) => {
    expect(() => read(document, { account: ACCOUNT })).toThrow(says);
  });

  test.each([
    { what: 'sharedRole is confirmed', more: { sharedRole: true }, entry: { host: OTHER, sharedRole: true } },
    { what: 'another region', more: {}, entry: { host: ELSEWHERE } },
    { what: 'another role', more: {}, entry: { host: OTHER, roleArn: role('x') } },
    { what: 'ECR Public', more: {}, entry: { host: PUBLIC } },
  ])('is no problem beside other namespaces: $what', ({ more, entry }) => {
    const registries = [{ namespaces: ['team-b'], ...entry }];
    expect(() => read({ ...own(more), registries }, { account: ACCOUNT })).not.toThrow();
  });
});

describe('entitlements', () => {
  test('returns the first matching entry of each host', () => {
    const policy = policyOf([
      { host: HOST, namespaces: ['team-a'], roleArn: role('a') },
      { host: HOST, namespaces: ['team-*'], roleArn: role('team') },
      { host: HOST, namespaces: ['*'] },
      { host: OTHER, namespaces: ['team-a'], roleArn: role('a'), sharedRole: true },
    ]);
    const roles = (namespace: string) =>
      policy.entitlements(namespace).map(({ host, source }) => [host, source.role?.arn]);
    expect(roles('team-a')).toEqual([
      [HOST, role('a')],
      [OTHER, role('a')],
    ]);
    expect(roles('team-b')).toEqual([[HOST, role('team')]]);
    expect(roles('shop')).toEqual([[HOST, undefined]]);
  });

  test('returns no entitlement when no entry matches the namespace', () => {
    expect(hostsOf(policyOf([{ host: HOST, namespaces: ['team-*'] }]), 'shop')).toEqual([]);
  });

  test.each([
    ['*', ''],
    ['a*a', 'a'],
    ['a*a', 'aa'],
    ['*a*', 'bab'],
    ['**', 'x'],
    ['a**b', 'ab'],
    ['*ab*ab', 'ab'],
    ['*ab*ab', 'abab'],
    ['team', 'team-a'],
    ['team-*', 'team-'],
    [`${'*a'.repeat(30)}b`, 'a'.repeat(63)],
  ])('matches %s and %j as a regular expression does', (glob, name) => {
    expectAsRegExp(glob, name);
  });

  test('match patterns as regular expressions do', () => {
    const letters = 'ab*'.split('');
    const words = (length: number): string[] =>
      length === 0 ? [''] : words(length - 1).flatMap((word) => letters.map((letter) => word + letter));
    const globs = [1, 2, 3, 4].flatMap(words);
    const names = [1, 2, 3, 4].flatMap(words).filter((name) => !name.includes('*'));
    for (const glob of globs) for (const name of names) expectAsRegExp(glob, name);
  });

  function expectAsRegExp(glob: string, name: string): void {
    // Several stars are one star: otherwise the regular expression would take forever.
    const expected = new RegExp(`^${glob.replaceAll(/\*+/g, '.*')}$`);
    const isEntitled = hostsOf(policyOf([{ host: HOST, namespaces: [glob] }]), name).length > 0;
    if (isEntitled !== isMatch(expected, glob, name))
      expect.unreachable(`${glob} and ${name}: ${isEntitled}`);
  }
});

/** A regular expression cannot match the long pattern in reasonable time; it matches only names that end in b. */
function isMatch(expected: RegExp, glob: string, name: string): boolean {
  return glob.length > 20 ? name.endsWith('b') : expected.test(name);
}
