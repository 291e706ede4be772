// What doctor makes of what it has seen: which link is to blame, and commands that can be pasted. Without a bed: for
// clusters that only AWS has, and for whatever names may be.
import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { fromInspection, fromStatus, type Subject } from '../../cli/doctor/from-aws.ts';
import {
  broken,
  type Finding,
  firstBroken,
  judge,
  LINKS,
  type LinkName,
  well,
} from '../../cli/doctor/links.ts';
import { Repairs } from '../../cli/repairs.ts';
import type { ClusterSummary } from '../../functions/refresher/report.ts';
import type { ClusterStatus } from '../../functions/refresher/status.ts';

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

  test('of several findings for a link, the worst that is certain', () => {
    const findings: Finding[] = [well('ecr', 'in one'), broken('ecr', 'not in another', 'x')];
    expect(firstBroken(findings)?.says).toBe('not in another');
  });
});

describe('commands', () => {
  const options = { profile: 'ops', region: 'eu-west-1', stage: 'Blue', kubeconfig: '/home/me/a b' };
  const context = "it's $HOME; `id`";
  const repairs = new Repairs(options, { context, release: { release: 'ecr', namespace: 'pulls' } });

  /** The arguments that a shell makes of it. */
  const argsOf = (command: string) =>
    execFileSync('/bin/sh', ['-c', `set -- ${command}; printf '%s\\n' "$@"`], { encoding: 'utf8' })
      .trimEnd()
      .split('\n');

  test('name the same account, stack and cluster, whatever they are called', () => {
    expect(argsOf(repairs.own(['register', 'alpha'], true))).toEqual([
      ...['ecr-anywhere', 'register', 'alpha', '--profile', 'ops', '--region', 'eu-west-1'],
      ...['--stage', 'Blue', '--kubeconfig', '/home/me/a b', '--context', context],
    ]);
    expect(argsOf(repairs.kubectl(['get', 'pods']))).toEqual([
      ...['kubectl', '--kubeconfig', '/home/me/a b', '--context', context, 'get', 'pods'],
    ]);
    expect(argsOf(repairs.upgrade())).toEqual([
      ...['helm', 'upgrade', 'ecr', 'webhook/chart', '--namespace', 'pulls', '--reset-then-reuse-values'],
      ...['--kubeconfig', '/home/me/a b', '--kube-context', context],
    ]);
    expect(repairs.deploy()).toBe('AWS_REGION=eu-west-1 npx cdk deploy -c stackName=Blue --profile ops');
  });
});

const status: ClusterStatus = { name: 'alpha', source: 'registered', isPaused: false };
const summary: ClusterSummary = {
  ...{ cluster: 'alpha', served: false, failed: true, managed: 0, due: 0, outcomes: {}, problems: [] },
  reason: 'GET /api/v1/namespaces: HTTP 401: Unauthorized',
};
const subject: Subject = {
  status,
  repairs: new Repairs({}, { context: 'prod', roleArn: 'arn:aws:iam::111122223333:role/refresher' }),
  isFenced: ({ groups }) => groups.includes('ecr-anywhere:refreshers'),
};
const first = (changes: Partial<ClusterSummary>, of: Partial<Subject> = {}) =>
  firstBroken(fromInspection({ ...summary, ...changes }, { ...subject, ...of }));

describe('what the refresher says', () => {
  test('is registered again under the address that it has', () => {
    const inspection = { server: 'https://edge.example.com:6443' };
    expect(first({ inspection }, { ownServer: 'https://10.0.0.1:6443' })?.repair).toBe(
      'ecr-anywhere register alpha --replace --server https://edge.example.com:6443 --context prod',
    );
    expect(first({ inspection }, { ownServer: inspection.server })?.repair).toBe(
      'ecr-anywhere register alpha --replace --context prod',
    );
  });

  const arn = 'arn:aws:eks:us-east-1:111122223333:cluster/gpu';
  const tagged = { ...status, name: arn, source: 'eks' } as const;

  test.each([
    {
      what: 'it is not let in',
      changes: {},
      link: 'credential',
    },
    {
      what: 'it is somebody else',
      changes: {
        served: true,
        inspection: { server: 'https://x', username: 'admin', groups: ['system:masters'], forbidden: [] },
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

  test('a place where clusters cannot be looked for is no cluster with a wrong kubeconfig', () => {
    const place = { ...status, name: 'EKS in us-east-1', source: 'eks-scope' } as const;
    expect(first({ reason: 'ListClusters: AccessDeniedException: no' }, { status: place })).toMatchObject({
      link: 'registered',
      says: 'EKS clusters cannot be looked for: ListClusters: AccessDeniedException: no',
    });
  });

  test.each([
    { reason: "the cluster's time was up before it could be asked", link: 'reachable' },
    { reason: "GET /api/v1/namespaces: no answer before the cluster's deadline", link: 'reachable' },
    { reason: 'GET /api/v1/namespaces: HTTP 500: no reason given', link: 'reachable' },
    // A gate before the API server, whose words are no Status.
    { reason: 'GET /api/v1/namespaces: HTTP 403: no reason given', link: 'reachable' },
    {
      reason: 'GET /api/v1/namespaces: HTTP 403: namespaces is forbidden: User "x" cannot list',
      link: 'permissions',
    },
    { reason: 'AccessDeniedException: kms:Decrypt', link: 'kubeconfig' },
    { reason: 'users[0].user.exec: kubelogin is none of those that are understood', link: 'kubeconfig' },
  ])('$reason: $link', ({ reason, link }) => {
    expect(first({ reason })).toMatchObject({ link });
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
