// What doctor checks, in order from the operator's AWS session to the credentials in a Secret, and what a failure means.
import { TOKEN_FAILURES } from '../../../contract/denials.ts';

interface Check {
  readonly title: string;
  /** The checks that must not have failed for this one to be judged. */
  readonly needs: readonly string[];
  /** The codes of its failures. A code belongs to one check. */
  readonly codes: readonly string[];
  /** What a failure means. */
  readonly means: string;
}

export const CHECKS = {
  session: {
    title: 'AWS session',
    needs: [],
    codes: ['no-session', 'no-region', 'aws-unavailable'],
    means: 'doctor cannot check anything in AWS.',
  },
  function: {
    title: 'refresher function',
    needs: ['session'],
    codes: [
      'stack-not-found',
      'function-too-old',
      'function-too-new',
      'function-failed',
      'function-unavailable',
    ],
    means: 'The refresher does not work, or doctor cannot call it.',
  },
  registration: {
    title: 'cluster registration',
    needs: ['function'],
    codes: [
      'not-registered',
      'registered-under-other-name',
      'registration-incomplete',
      'registered-twice',
      'discovery-failed',
      'registration-unusable',
      'setting-missing',
      'different-cluster',
    ],
    means:
      'The refresher does not know the cluster, or cannot use what is registered, so it does not refresh it.',
  },
  schedule: {
    title: 'refresh schedule',
    needs: ['registration'],
    codes: ['paused', 'no-recent-run'],
    means: 'No run refreshes the cluster, so its credentials expire within twelve hours.',
  },
  reachable: {
    title: 'API server reachable from AWS',
    needs: ['registration'],
    codes: ['unreachable'],
    means: 'The refresher gets no response from the API server.',
  },
  credential: {
    title: 'registered credential',
    needs: ['reachable'],
    codes: ['credential-rejected', 'token-not-renewed'],
    means: 'The refresher cannot sign in to the cluster, or no longer can when its token expires.',
  },
  permissions: {
    title: 'refresher permissions',
    needs: ['credential'],
    codes: ['identity-not-restricted', 'permission-missing'],
    means: 'The refresher may do more than the write policy restricts, or less than a refresh needs.',
  },
  clock: {
    title: 'clocks',
    needs: ['reachable'],
    codes: ['clock-skew'],
    means: 'Tokens and certificates are rejected as expired, or as not yet valid.',
  },
  context: {
    title: 'kubeconfig context',
    needs: [],
    codes: ['context-unusable', 'wrong-context'],
    means: 'doctor cannot check the cluster itself.',
  },
  chart: {
    title: 'chart',
    needs: ['context'],
    codes: ['chart-not-installed', 'configuration-missing', 'original-beside'],
    means: 'The webhook is not the one that writes credentials into Secrets, or not the only one.',
  },
  'write-policy': {
    title: 'write policy',
    needs: ['chart'],
    codes: ['write-policy-not-enforced'],
    means: 'A stolen credential of the refresher could change whole Secrets.',
  },
  configuration: {
    title: 'webhook configuration',
    needs: ['chart'],
    codes: ['configuration-changed'],
    means: 'Managed Secrets may be stored without a call of the webhook.',
  },
  labels: {
    title: 'labels and types',
    needs: ['context'],
    codes: [
      'namespace-excluded',
      'namespace-label-wrong',
      'namespace-label-missing',
      'secret-type-wrong',
      'secret-label-wrong',
      'no-managed-secret',
    ],
    means:
      'The webhook serves only labelled Secrets of type kubernetes.io/dockerconfigjson in labelled namespaces.',
  },
  webhook: {
    title: 'webhook',
    needs: ['chart'],
    codes: [
      'ca-bundle-mismatch',
      'certificate-invalid',
      'webhook-not-deployed',
      'webhook-scaled-down',
      'webhook-timeout',
      'webhook-unreachable',
    ],
    means: 'The API server cannot call the webhook, and refuses every managed Secret.',
  },
  callers: {
    title: 'callers of the webhook',
    needs: ['chart'],
    codes: ['callers-not-limited'],
    means: 'Any pod can request the credentials of every namespace, or every managed Secret is refused.',
  },
  injection: {
    title: 'credential injection',
    needs: ['configuration', 'webhook', 'callers'],
    codes: ['webhook-not-called', 'webhook-too-old', 'webhook-too-new', 'denied'],
    means: 'Secrets are not stored with the credentials that the refresher relies on.',
  },
  ecr: {
    title: 'ECR credentials',
    needs: ['injection'],
    codes: ['not-entitled', ...TOKEN_FAILURES],
    means: 'The webhook gets no credentials for the namespace, and denies its Secrets.',
  },
  mutators: {
    title: 'other mutators',
    needs: ['write-policy', 'labels', 'ecr'],
    codes: ['changed-by-other-mutator'],
    means:
      'Every refresh is refused, because the write policy cannot tell the mutator from a stolen credential.',
  },
  refresh: {
    title: 'refresh of due Secrets',
    needs: ['permissions', 'mutators'],
    codes: ['not-refreshed'],
    means: 'The credentials of these Secrets expire.',
  },
  runs: {
    title: 'runs in the cluster',
    needs: ['mutators'],
    codes: ['cronjob-missing', 'cronjob-suspended', 'last-run-failed', 'no-recent-success'],
    means: 'The refresher in the cluster does not refresh everything, so credentials expire.',
  },
  // Last: a cluster that fails now is more urgent.
  subscribers: {
    title: 'alarm subscribers',
    needs: ['function'],
    codes: ['alarms-not-delivered'],
    means: 'The next cluster that fails is not announced to anyone.',
  },
} as const satisfies Readonly<Record<string, Check>>;

export type CheckName = keyof typeof CHECKS;
/** Why a check failed. */
export type FailureCode = (typeof CHECKS)[CheckName]['codes'][number];
export const CHECK_NAMES = Object.keys(CHECKS) as readonly CheckName[];
/** The checks of a cluster that the Lambda function serves. */
export const FUNCTION_CHECKS: readonly CheckName[] = CHECK_NAMES.filter((name) => name !== 'runs');
/** The checks of a cluster whose refresher runs in it. None of them depends on one that is not among them. */
export const IN_CLUSTER_CHECKS: readonly CheckName[] = CHECK_NAMES.slice(
  CHECK_NAMES.indexOf('context'),
).filter((name) => name !== 'refresh' && name !== 'subscribers');

/** What to do about a failure. `repair`: a command that is certainly right. `investigate`: one that only shows more. */
export type Remedy = ({ readonly repair: string } | { readonly investigate: string }) & {
  /** Sentences: what to know before the command is run, and what to do after it. */
  readonly hint?: string | undefined;
};

export interface Finding {
  readonly check: CheckName;
  /** `skipped`: doctor could not check it, or an earlier check failed that it depends on. */
  readonly verdict: 'passed' | 'failed' | 'skipped';
  /** What was observed; if the check was skipped, why. */
  readonly message: string;
  /** Only of a failed check, as are the fields of a Remedy. */
  readonly code?: FailureCode;
  readonly repair?: string;
  readonly investigate?: string;
  readonly hint?: string | undefined;
  /** A failure that was observed and may only follow from an earlier one. */
  readonly observed?: string;
}

/** The remedy of a failure. */
export function remedyOf({ repair, investigate = '', hint }: Finding): Remedy {
  return repair === undefined ? { investigate, hint } : { repair, hint };
}

const finding =
  (verdict: Finding['verdict']) =>
  (check: CheckName, message: string): Finding => ({ check, verdict, message });
export const passed = finding('passed');
export const skipped = finding('skipped');

export function failed(code: FailureCode, message: string, remedy: Remedy): Finding {
  const has = (name: CheckName) => (CHECKS[name].codes as readonly string[]).includes(code);
  const check = CHECK_NAMES.find(has) as CheckName;
  return { check, verdict: 'failed', code, message, ...remedy };
}

const RANK = { failed: 0, passed: 1, skipped: 2 } as const;

/**
 * Returns one finding for each check, in order. Of several findings for a check a failed one wins, then a passed one; of
 * equals the first. A failure becomes `skipped` if an earlier check failed that it depends on, as it may be a consequence.
 *
 * @param names of the checks
 */
export function judge(findings: readonly Finding[], names = FUNCTION_CHECKS): Finding[] {
  const judged = new Map<CheckName, Finding>();
  /** The failed check that each check depends on, directly or not. */
  const causes = new Map<CheckName, CheckName | undefined>();
  for (const check of names) {
    const [seen] = findings
      .filter((finding) => finding.check === check)
      .toSorted((a, b) => RANK[a.verdict] - RANK[b.verdict]);
    const needs = CHECKS[check].needs.map((name: CheckName) => judged.get(name) as Finding);
    const [cause] = needs.flatMap((need) =>
      need.verdict === 'failed' ? need.check : (causes.get(need.check) ?? []),
    );
    causes.set(check, cause);
    if (cause !== undefined && seen?.verdict !== 'passed')
      judged.set(check, {
        ...skipped(check, `“${CHECKS[cause].title}” failed`),
        ...(seen?.verdict === 'failed' && { observed: seen.message }),
      });
    else {
      const unknown = needs.find(({ verdict }) => verdict === 'skipped');
      judged.set(check, seen ?? skipped(check, unknown?.message ?? 'not checked'));
    }
  }
  return [...judged.values()];
}

/** The first check that failed; else the first of those given that were skipped; undefined if all passed. */
export function firstProblem(findings: readonly Finding[]): Finding | undefined {
  const given = new Set(findings.map(({ check }) => check));
  const judged = judge(findings);
  return (
    judged.find(({ verdict }) => verdict === 'failed') ??
    judged.find(({ check, verdict }) => verdict === 'skipped' && given.has(check))
  );
}

/** A finding as `--output json` prints it. */
export function toJson({ check, ...finding }: Finding) {
  const { title, means } = CHECKS[check];
  return { check, title, ...finding, ...(finding.verdict === 'failed' && { means }) };
}
