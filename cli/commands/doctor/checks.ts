// The chain from an AWS session to the credentials in a Secret: its links in order, and what a broken one means.

/** In the order in which they are walked. `needs`: what has to hold for a link to be judged at all. */
export const LINKS = {
  session: {
    title: 'AWS session',
    means: 'You cannot ask AWS anything.',
    needs: [],
  },
  stack: {
    title: 'the deployed refresher',
    means: 'There is nothing here that would refresh Secrets.',
    needs: ['session'],
  },
  function: {
    title: 'the refresher answers',
    means: 'The function does not work, so no cluster is refreshed.',
    needs: ['stack'],
  },
  registered: {
    title: 'registered',
    means: 'The refresher does not know the cluster.',
    needs: ['function'],
  },
  paused: {
    title: 'not paused',
    means: 'A paused cluster is not refreshed: its credentials expire.',
    needs: ['registered'],
  },
  schedule: {
    title: 'the schedule runs',
    means: 'Nobody asks for refreshes: all credentials expire within twelve hours.',
    needs: ['registered'],
  },
  kubeconfig: {
    title: 'the registered kubeconfig',
    means: 'The refresher cannot use what is registered.',
    needs: ['registered'],
  },
  reachable: {
    title: 'reachable from the Lambda',
    means: 'The refresher gets no answer from the API server.',
    needs: ['kubeconfig'],
  },
  credential: {
    title: 'the registered credential',
    means: 'The API server does not take it: it has expired, was revoked, or is of another cluster.',
    needs: ['reachable'],
  },
  identity: {
    title: 'inside the fence',
    means: 'Nothing would hold whoever steals the registered credential.',
    needs: ['credential'],
  },
  permissions: {
    title: 'RBAC',
    means: 'The refresher may not do what a refresh needs.',
    needs: ['credential'],
  },
  token: {
    title: 'the token renews itself',
    means: 'When it expires, the refresher is locked out.',
    needs: ['credential'],
  },
  clock: {
    title: 'clocks agree',
    means: 'Tokens and certificates are refused as expired, or not valid yet.',
    needs: ['reachable'],
  },
  context: {
    title: 'your own context',
    means: 'The cluster itself cannot be looked into from here.',
    needs: [],
  },
  kubernetes: {
    title: 'Kubernetes version',
    means: 'The fence needs ValidatingAdmissionPolicy, which is there from 1.30 on.',
    needs: ['context'],
  },
  chart: {
    title: 'the chart is installed',
    means: 'Nobody writes credentials into Secrets.',
    needs: ['context'],
  },
  policies: {
    title: 'policies of the fence',
    means: 'A stolen credential of the refresher could change whole Secrets.',
    needs: ['chart'],
  },
  configuration: {
    title: 'webhook configuration',
    means: 'The API server does not show the webhook what it should.',
    needs: ['chart'],
  },
  'ca-bundle': {
    title: 'caBundle',
    means: 'The API server does not trust the webhook, and refuses every managed Secret.',
    needs: ['chart'],
  },
  namespaces: {
    title: 'namespace labels',
    means: 'Secrets of a namespace without the label are not served.',
    needs: ['context'],
  },
  secrets: {
    title: 'Secret labels and types',
    means: 'Only labelled Secrets of type kubernetes.io/dockerconfigjson are served.',
    needs: ['context'],
  },
  webhook: {
    title: 'the webhook answers',
    means: 'The API server refuses every managed Secret, and no refresh succeeds.',
    needs: ['ca-bundle'],
  },
  certificate: {
    title: "the webhook's certificate",
    means: 'The API server refuses every managed Secret, and no refresh succeeds.',
    needs: ['webhook'],
  },
  injection: {
    title: 'Secrets are injected',
    means: 'Secrets are stored without credentials, quietly.',
    needs: ['configuration', 'certificate'],
  },
  contract: {
    title: "the webhook's version",
    means: 'The webhook does not do all that the refresher relies on.',
    needs: ['injection'],
  },
  entitlement: {
    title: 'registries for the namespaces',
    means: 'The policy gives a namespace no registry, so its Secrets are refused.',
    needs: ['injection'],
  },
  'aws-identity': {
    title: "the webhook's AWS identity",
    means: 'The webhook is nobody to AWS, and gets no credentials.',
    needs: ['injection'],
  },
  ecr: {
    title: 'ECR gives tokens',
    means: 'The webhook gets no credentials.',
    needs: ['aws-identity'],
  },
  refresh: {
    title: 'due Secrets would be refreshed',
    means: 'Their credentials expire.',
    needs: ['permissions', 'entitlement', 'ecr'],
  },
} as const satisfies Readonly<Record<string, Link>>;

interface Link {
  readonly title: string;
  /** What it means where it is broken. */
  readonly means: string;
  readonly needs: readonly string[];
}

export type LinkName = keyof typeof LINKS;

export interface Finding {
  readonly link: LinkName;
  /** `unknown`: it could not be looked at, or nothing can be said of it while an earlier one is broken. */
  readonly verdict: 'well' | 'broken' | 'unknown';
  /** What was seen; of what is unknown, why. */
  readonly says: string;
  /** The command that commands it; where none can, the one that shows more. */
  readonly repair?: string;
  /** What else there is to know before it is run. */
  readonly hint?: string;
}

export const well = (link: LinkName, says: string): Finding => ({ link, verdict: 'well', says });
export const unknown = (link: LinkName, says: string): Finding => ({ link, verdict: 'unknown', says });
export const broken = (link: LinkName, says: string, repair: string, hint?: string): Finding => ({
  ...{ link, verdict: 'broken', says, repair },
  ...(hint !== undefined && { hint }),
});

const RANK = { broken: 0, well: 1, unknown: 2 } as const;

/**
 * One finding for each link, in the chain's order. Of several for one, what is broken wins, then what is well. What seems
 * broken, and needs a link that is, may be well once that is mended: it is unknown. What nobody has looked at says what has
 * stood in the way.
 */
export function judge(findings: readonly Finding[]): Finding[] {
  const judged = new Map<LinkName, Finding>();
  /** The broken link that one needs, however far away. */
  const cause = (link: LinkName): LinkName | undefined => {
    for (const need of LINKS[link].needs) {
      const found = judged.get(need)?.verdict === 'broken' ? need : cause(need);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  for (const link of Object.keys(LINKS) as LinkName[]) {
    const [seen] = findings
      .filter((finding) => finding.link === link)
      .toSorted((a, b) => RANK[a.verdict] - RANK[b.verdict]);
    const culprit = seen === undefined || seen.verdict === 'broken' ? cause(link) : undefined;
    if (seen && culprit)
      judged.set(
        link,
        unknown(link, `perhaps only because “${LINKS[culprit].title}” is broken: ${seen.says}`),
      );
    else judged.set(link, seen ?? unknown(link, whyUnseen(link, culprit, judged)));
  }
  return [...judged.values()];
}

function whyUnseen(
  link: LinkName,
  culprit: LinkName | undefined,
  judged: ReadonlyMap<LinkName, Finding>,
): string {
  if (culprit) return `not looked at, because “${LINKS[culprit].title}” is broken`;
  const needs: readonly LinkName[] = LINKS[link].needs;
  const missing = needs.map((need) => judged.get(need)).find((need) => need?.verdict === 'unknown');
  return missing?.says ?? 'not looked at';
}

/** The first link that is broken, in the chain's order. */
export function firstBroken(findings: readonly Finding[]): Finding | undefined {
  return judge(findings).find(({ verdict }) => verdict === 'broken');
}

/** The first of these that is unknown, in the chain's order. */
export function firstUnknown(findings: readonly Finding[]): Finding | undefined {
  const links = new Set(findings.map(({ link }) => link));
  return judge(findings).find(({ link, verdict }) => verdict === 'unknown' && links.has(link));
}

/** With what is the same for every cluster; `means` where it is broken. */
export function inFull({ link, ...finding }: Finding) {
  const { title, means } = LINKS[link];
  return { link, title, ...finding, ...(finding.verdict === 'broken' && { means }) };
}
