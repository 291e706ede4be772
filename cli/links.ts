// The chain from an AWS session to the credentials in a Secret: its links in order, and what a broken one means.

/** In the order in which they are walked. */
export const LINKS = {
  session: {
    title: 'AWS session',
    means: 'You cannot ask AWS anything.',
  },
  stack: {
    title: 'the deployed refresher',
    means: 'There is nothing here that would refresh Secrets.',
  },
  function: {
    title: 'the refresher answers',
    means: 'The function does not work, so no cluster is refreshed.',
  },
  registered: {
    title: 'registered',
    means: 'The refresher does not know the cluster.',
  },
  paused: {
    title: 'not paused',
    means: 'A paused cluster is not refreshed: its credentials expire.',
  },
  schedule: {
    title: 'the schedule runs',
    means: 'Nobody asks for refreshes: all credentials expire within twelve hours.',
  },
  kubeconfig: {
    title: 'the registered kubeconfig',
    means: 'The refresher cannot use what is registered.',
  },
  reachable: {
    title: 'reachable from the Lambda',
    means: 'The refresher gets no answer from the API server.',
  },
  credential: {
    title: 'the registered credential',
    means: 'The API server does not take it: it has expired, was revoked, or is of another cluster.',
  },
  identity: {
    title: 'inside the fence',
    means: 'Nothing would hold whoever steals the registered credential.',
  },
  permissions: {
    title: 'RBAC',
    means: 'The refresher may not do what a refresh needs.',
  },
  token: {
    title: 'the token renews itself',
    means: 'When it expires, the refresher is locked out.',
  },
  clock: {
    title: 'clocks agree',
    means: 'Tokens and certificates are refused as expired, or not valid yet.',
  },
  context: {
    title: 'your own context',
    means: 'The cluster itself cannot be looked into from here.',
  },
  kubernetes: {
    title: 'Kubernetes version',
    means: 'The fence needs ValidatingAdmissionPolicy, which is there from 1.30 on.',
  },
  chart: {
    title: 'the chart is installed',
    means: 'Nobody writes credentials into Secrets.',
  },
  policies: {
    title: 'policies of the fence',
    means: 'A stolen credential of the refresher could change whole Secrets.',
  },
  configuration: {
    title: 'webhook configuration',
    means: 'The API server does not show the webhook what it should.',
  },
  'ca-bundle': {
    title: 'caBundle',
    means: 'The API server does not trust the webhook, and refuses every managed Secret.',
  },
  namespaces: {
    title: 'namespace labels',
    means: 'Secrets of a namespace without the label are not served.',
  },
  secrets: {
    title: 'Secret labels and types',
    means: 'Only labelled Secrets of type kubernetes.io/dockerconfigjson are served.',
  },
  webhook: {
    title: 'the webhook answers',
    means: 'The API server refuses every managed Secret, and no refresh succeeds.',
  },
  certificate: {
    title: "the webhook's certificate",
    means: 'The API server refuses every managed Secret, and no refresh succeeds.',
  },
  injection: {
    title: 'Secrets are injected',
    means: 'Secrets are stored without credentials, quietly.',
  },
  contract: {
    title: "the webhook's version",
    means: 'The webhook does not do all that the refresher relies on.',
  },
  entitlement: {
    title: 'registries for the namespaces',
    means: 'The policy gives a namespace no registry, so its Secrets are refused.',
  },
  'aws-identity': {
    title: "the webhook's AWS identity",
    means: 'The webhook is nobody to AWS, and gets no credentials.',
  },
  ecr: {
    title: 'ECR gives tokens',
    means: 'The webhook gets no credentials.',
  },
  refresh: {
    title: 'due Secrets would be refreshed',
    means: 'Their credentials expire.',
  },
} as const;

export type LinkName = keyof typeof LINKS;

export interface Finding {
  readonly link: LinkName;
  /** `unknown`: it could not be looked at. */
  readonly verdict: 'well' | 'broken' | 'unknown';
  /** What was seen; of what is unknown, why. */
  readonly says: string;
  /** What repairs it. */
  readonly repair?: string;
}

export const well = (link: LinkName, says: string): Finding => ({ link, verdict: 'well', says });
export const unknown = (link: LinkName, says: string): Finding => ({ link, verdict: 'unknown', says });
export const broken = (link: LinkName, says: string, repair: string): Finding => ({
  ...{ link, verdict: 'broken', says, repair },
});

/** The first link that is broken, in the chain's order. */
export function firstBroken(findings: readonly Finding[]): Finding | undefined {
  return inOrder(findings).find(({ verdict }) => verdict === 'broken');
}

/** In the chain's order. */
export function inOrder(findings: readonly Finding[]): Finding[] {
  const order = Object.keys(LINKS);
  return findings.toSorted((a, b) => order.indexOf(a.link) - order.indexOf(b.link));
}
