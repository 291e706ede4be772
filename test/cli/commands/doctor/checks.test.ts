// What doctor makes of what it has seen: which link is to blame, and commands that can be pasted. Without a bed: for
// clusters that only AWS has, and for whatever names may be.

import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { fromInspection, fromStatus, type Subject } from '../../../../cli/commands/doctor/check-cluster.ts';
import {
  broken,
  type Finding,
  firstBroken,
  judge,
  LINKS,
  type LinkName,
  unknown,
  well,
} from '../../../../cli/commands/doctor/checks.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import type {
  ClusterStatus,
  ClusterSummary,
  FailedAt,
  Inspection,
} from '../../../../contract/refresher-api.ts';

const links = Object.keys(LINKS) as LinkName[];

describe('the first broken link', () => {
  test('every link needs only earlier ones', () => {
    for (const [index, link] of links.entries())
      for (const need of LINKS[link].needs) expect(links.slice(0, index)).toContain(need);
  });

  test('what needs a broken one is unknown, however far away, and says why', () => {
    const judged = judge([
      broken('refresh', 'ten are refused', 'x'),
      well('injection', 'asked'),
      broken('webhook', 'no answer', 'x'),
    ]);
    const of = (link: LinkName) => judged.find((finding) => finding.link === link);
    expect(judged.map(({ link }) => link)).toEqual(links);
    expect(of('webhook')?.verdict).toBe('broken');
    expect(of('injection')?.verdict).toBe('well');
    expect(of('refresh')).toEqual({
      link: 'refresh',
      verdict: 'unknown',
      says: 'perhaps only because “the webhook answers” is broken: ten are refused',
    });
  });

  test('what needs none of the broken ones is broken for itself', () => {
    const judged = judge([broken('namespaces', 'a', 'x'), broken('clock', 'b', 'x')]);
    expect(judged.filter(({ verdict }) => verdict === 'broken').map(({ link }) => link)).toEqual([
      ...['clock', 'namespaces'],
    ]);
  });

  test('what nobody has looked at says what has stood in the way', () => {
    const says = (link: LinkName, ...findings: Finding[]) =>
      judge(findings).find((finding) => finding.link === link)?.says;
    expect(says('ecr', broken('webhook', 'no answer', 'x'))).toBe(
      'not looked at, because “the webhook answers” is broken',
    );
    expect(says('ecr', unknown('context', 'whose is it?'))).toBe('whose is it?');
    expect(says('ecr')).toBe('not looked at');
  });

  test('of several findings for a link, the worst that is certain', () => {
    const findings: Finding[] = [well('ecr', 'in one'), broken('ecr', 'not in another', 'x')];
    expect(firstBroken(findings)?.says).toBe('not in another');
  });
});

describe('commands', () => {
  const options = { profile: 'ops', region: 'eu-west-1', stackName: 'Blue', kubeconfig: '/home/me/a b' };
  const context = "it's $HOME; `id`";
  const commands = new ShellCommands(options, { context, release: { release: 'ecr', namespace: 'pulls' } });

  /** The arguments that a shell makes of it. */
  const argsOf = (command: string) =>
    execFileSync('/bin/sh', ['-c', `set -- ${command}\nprintf '%s\\n' "$@"`], { encoding: 'utf8' })
      .trimEnd()
      .split('\n');

  test('name the same account, stack and cluster, whatever they are called', () => {
    expect(argsOf(commands.cli(['register', 'alpha'], true))).toEqual([
      ...['ecr-anywhere', 'register', 'alpha', '--profile', 'ops', '--region', 'eu-west-1'],
      ...['--stack-name', 'Blue', '--kubeconfig', '/home/me/a b', '--context', context],
    ]);
    expect(argsOf(commands.kubectl(['get', 'pods']))).toEqual([
      ...['kubectl', '--kubeconfig', '/home/me/a b', '--context', context, 'get', 'pods'],
    ]);
    expect(argsOf(commands.upgrade())).toEqual([
      ...['helm', 'upgrade', 'ecr', 'webhook/chart', '--namespace', 'pulls', '--reset-then-reuse-values'],
      ...['--kubeconfig', '/home/me/a b', '--kube-context', context],
    ]);
    expect(argsOf(commands.deploy())).toEqual([
      ...['AWS_REGION=eu-west-1', 'npx', 'cdk', 'deploy', '-c', 'stackName=Blue', '--profile', 'ops'],
    ]);
  });

  test('a deployment says itself that settings which are not given are taken back', () => {
    for (const command of [commands.deploy(), commands.deploy({ keyless: 'true' })])
      expect(command).toMatch(/ # with the settings that the stack has: -c … or cdk\.json$/);
  });
});

const status: ClusterStatus = { name: 'alpha', source: 'registered', isPaused: false };
const summary: ClusterSummary = {
  ...{ cluster: 'alpha', served: false, failed: true, managed: 0, due: 0, outcomes: {}, problems: [] },
  ...{ reason: 'GET /api/v1/namespaces: HTTP 401: Unauthorized', failedAt: 'credential' },
};
const subject: Subject = {
  status,
  commands: new ShellCommands({}, { context: 'prod', roleArn: 'arn:aws:iam::111122223333:role/refresher' }),
  isFenced: ({ groups }) => groups.includes('ecr-anywhere:refreshers'),
};
const first = (changes: Partial<ClusterSummary>, of: Partial<Subject> = {}) =>
  firstBroken(fromInspection({ ...summary, ...changes }, { ...subject, ...of }));

const server = 'https://edge.example.com:6443';
const inspectionOf = (identity: Inspection['identity'], more: Partial<Inspection> = {}) => ({
  inspection: { server, identity, ...more },
});

describe('what the refresher says', () => {
  test.each<{ identity: Inspection['identity']; flags: string; ownServer?: string }>([
    { identity: 'token', flags: ` --server ${server}` },
    { identity: 'token', flags: '', ownServer: server },
    { identity: 'certificate', flags: ` --credential KUBECONFIG --server ${server}` },
    { identity: 'keyless', flags: ' --keyless', ownServer: server },
    // Which names its endpoint itself.
    { identity: 'eks', flags: ' --eks' },
  ])(
    '$identity is registered as that again, under the address that it has',
    ({ identity, flags, ...known }) => {
      expect(first(inspectionOf(identity), { ownServer: 'https://10.0.0.1:6443', ...known })).toMatchObject({
        link: 'credential',
        repair: `ecr-anywhere register alpha --replace${flags} --context prod`,
      });
    },
  );

  test('what is not known to be a token is not replaced by one without a word', () => {
    expect(first({ failedAt: 'kubeconfig' })).toMatchObject({
      repair: 'ecr-anywhere register alpha --replace --context prod',
      hint: 'With --eks, --keyless or --credential KUBECONFIG, where it was registered so: without, a token is stored',
    });
  });

  test('one that leads elsewhere is registered as what it is, and not under that address', () => {
    const found = first(
      { served: true, failed: false, ...inspectionOf('keyless', { clusterUid: 'another' }) },
      { status: { ...status, clusterUid: 'one' } },
    );
    expect(found).toMatchObject({
      link: 'kubeconfig',
      repair: 'ecr-anywhere register alpha --replace --keyless --context prod',
    });
  });

  test('only a token is lost with the chart', () => {
    const missingChart = broken('chart', 'gone', 'helm install');
    expect(first(inspectionOf('token'), { missingChart })?.repair).toBe('helm install');
    expect(first(inspectionOf('eks'), { missingChart })?.repair).toContain('--eks');
    const forbidden = first({ failedAt: 'permissions', ...inspectionOf('eks') }, { missingChart });
    expect(forbidden).toMatchObject({ link: 'permissions', repair: 'helm install' });
  });

  const arn = 'arn:aws:eks:us-east-1:111122223333:cluster/gpu';
  const tagged = { ...status, name: arn, source: 'eks' } as const;
  const ENDPOINT = /^aws eks describe-cluster --name (gpu|NAME) .*resourcesVpcConfig --region us-east-1$/;

  test.each<{ what: string; changes: Partial<ClusterSummary>; link: LinkName }>([
    { what: 'it is not let in', changes: {}, link: 'credential' },
    {
      what: 'it is somebody else',
      changes: {
        served: true,
        ...inspectionOf('eks', { username: 'admin', groups: ['system:masters'], forbidden: [] }),
      },
      link: 'identity',
    },
  ])('a tagged EKS cluster is let in by its access entry, where $what', ({ changes, link }) => {
    expect(first(changes, { status: tagged })).toMatchObject({
      link,
      repair:
        'aws eks create-access-entry --cluster-name gpu --principal-arn arn:aws:iam::111122223333:role/refresher --kubernetes-groups ecr-anywhere:refreshers --region us-east-1',
    });
  });

  test.each<{ failedAt: FailedAt; of: ClusterStatus; link: LinkName }>([
    { failedAt: 'reach', of: tagged, link: 'reachable' },
    { failedAt: 'kubeconfig', of: tagged, link: 'kubeconfig' },
    { failedAt: 'reach', of: status, link: 'reachable' },
  ])('an EKS cluster that fails at $failedAt is not mended by an access entry', ({ failedAt, of, link }) => {
    const eks = inspectionOf('eks', { server: 'https://ABC.gr7.us-east-1.eks.amazonaws.com' });
    expect(first({ failedAt, ...eks }, { status: of })).toMatchObject({
      ...{ link, repair: expect.stringMatching(ENDPOINT) },
    });
  });

  test('a place where clusters cannot be looked for is no cluster with a wrong kubeconfig', () => {
    const place = { ...status, name: 'EKS in us-east-1', source: 'eks-discovery' } as const;
    const reason = 'ListClusters: AccessDeniedException: no';
    expect(first({ reason, failedAt: 'reach' }, { status: place })).toMatchObject({
      link: 'registered',
      says: 'EKS clusters cannot be looked for: ListClusters: AccessDeniedException: no',
    });
  });

  test.each<{ failedAt: FailedAt; link: LinkName }>([
    { failedAt: 'kubeconfig', link: 'kubeconfig' },
    { failedAt: 'setting', link: 'kubeconfig' },
    { failedAt: 'reach', link: 'reachable' },
    { failedAt: 'credential', link: 'credential' },
    { failedAt: 'permissions', link: 'permissions' },
  ])('it failed at $failedAt: $link, whatever its words are', ({ failedAt, link }) => {
    for (const reason of ['HTTP 401', 'GET /x: HTTP 403: forbidden', 'no answer', 'CDK setting', 'other'])
      expect(first({ failedAt, reason })).toMatchObject({ link, says: expect.stringContaining(reason) });
  });

  test.each([
    { identity: 'keyless', settings: '-c keyless=true' },
    { identity: 'eks', settings: '-c SETTING=VALUE' },
  ] as const)('a setting that $identity needs is deployed', ({ identity, settings }) => {
    const { repair } = first({ failedAt: 'setting', ...inspectionOf(identity) }) ?? {};
    expect(repair).toMatch(new RegExp(`^npx cdk deploy ${settings} # with the settings that the stack has`));
  });

  test('a refresher that does not say where it failed is of another version', () => {
    const { failedAt: _, ...older } = summary;
    const found = firstBroken(fromInspection({ ...older, reason: 'x' }, subject));
    expect(found).toMatchObject({ link: 'reachable', repair: expect.stringContaining('cdk deploy') });
  });

  test('a namespace that cannot be listed is a failure, though nothing was due', () => {
    const reason = 'GET /api/v1/namespaces/shop/secrets: HTTP 500: etcdserver: request timed out';
    expect(first({ served: true, managed: 3, reason })).toMatchObject({ link: 'refresh', says: reason });
  });

  test('a cluster that nobody has looked at yet is no silent one', () => {
    expect(fromStatus(subject, 0).find(({ link }) => link === 'schedule')).toMatchObject({
      verdict: 'unknown',
      says: 'no run has looked at it yet',
    });
  });
});
