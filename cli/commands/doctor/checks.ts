// What doctor checks, in order from the operator's AWS session to the credentials in a Secret, and what a failure means.

/**
 * `needs`: the checks that must not have failed for this one to be judged. `failures`: the codes of its failures, and
 * what each means. A code belongs to one check.
 */
export const CHECKS = {
  session: {
    title: 'AWS session',
    needs: [],
    failures: {
      'no-session': 'doctor cannot check anything in AWS.',
      'no-region': 'doctor cannot check anything in AWS.',
      'aws-unavailable': 'doctor cannot check anything in AWS.',
    },
  },
  function: {
    title: 'refresher function',
    needs: ['session'],
    failures: {
      'stack-not-found': 'No refresher is deployed under this name in this account and region.',
      'function-too-old': 'The deployed refresher and this command line are of different versions.',
      'function-failed': 'The refresher does not work, so it refreshes no cluster.',
      'function-unavailable': 'doctor cannot call the refresher.',
    },
  },
  registration: {
    title: 'cluster registration',
    needs: ['function'],
    failures: {
      'not-registered': 'The refresher does not know the cluster, so it does not refresh its Secrets.',
      'registered-under-other-name': 'The cluster of the context is registered under a different name.',
      'discovery-failed': 'The refresher does not find the tagged EKS clusters of this discovery target.',
      'registration-unusable': 'The refresher cannot use what is registered.',
      'setting-missing': 'The refresher lacks a setting that the cluster needs.',
      'different-cluster': 'The registration leads to a different cluster.',
    },
  },
  schedule: {
    title: 'refresh schedule',
    needs: ['registration'],
    failures: {
      paused: 'The refresher skips a paused cluster, so its credentials expire.',
      'no-recent-run': 'If no run refreshes the cluster, its credentials expire within twelve hours.',
    },
  },
  reachable: {
    title: 'API server reachable from AWS',
    needs: ['registration'],
    failures: { unreachable: 'The refresher gets no response from the API server.' },
  },
  credential: {
    title: 'registered credential',
    needs: ['reachable'],
    failures: {
      'credential-rejected':
        'The API server does not accept the registered credential: it has expired, was revoked, or belongs to another cluster.',
      'token-not-renewed': 'When the token expires, the refresher can no longer sign in to the cluster.',
    },
  },
  permissions: {
    title: 'refresher permissions',
    needs: ['credential'],
    failures: {
      'identity-not-restricted':
        'The write policy does not restrict this identity: a stolen credential could change whole Secrets.',
      'permission-missing': 'The refresher cannot list or patch all managed Secrets.',
    },
  },
  clock: {
    title: 'clocks',
    needs: ['reachable'],
    failures: { 'clock-skew': 'Tokens and certificates are rejected as expired, or as not yet valid.' },
  },
  context: {
    title: 'kubeconfig context',
    needs: [],
    failures: {
      'context-unusable': 'doctor cannot check the cluster itself.',
      'wrong-context': 'doctor cannot check the cluster itself by this context.',
    },
  },
  chart: {
    title: 'chart',
    needs: ['context'],
    failures: {
      'kubernetes-too-old':
        'The write policy needs ValidatingAdmissionPolicy, which Kubernetes has from version 1.30 on.',
      'chart-not-installed': 'No webhook writes credentials into Secrets.',
      'configuration-missing': 'The API server does not call the webhook, so Secrets get no credentials.',
      'original-in-place': 'The webhook of CentML/ecr-anywhere serves the Secrets, and not this one.',
      'original-beside': 'Two webhooks write the same Secrets, so the API server may refuse refreshes.',
    },
  },
  'write-policy': {
    title: 'write policy',
    needs: ['chart'],
    failures: {
      'write-policy-not-enforced': 'A stolen credential of the refresher could change whole Secrets.',
    },
  },
  configuration: {
    title: 'webhook configuration',
    needs: ['chart'],
    failures: {
      'configuration-changed': 'Managed Secrets may be stored without a call of the webhook.',
    },
  },
  labels: {
    title: 'labels and types',
    needs: ['context'],
    failures: {
      'namespace-excluded': 'The webhook never serves Secrets of this namespace.',
      'namespace-label-wrong': 'The webhook does not serve Secrets of a namespace with another label value.',
      'namespace-label-missing': 'The webhook does not serve Secrets of a namespace without the label.',
      'no-enabled-namespace': 'The webhook serves Secrets of enabled namespaces only.',
      'secret-type-wrong': 'The webhook denies managed Secrets of other types.',
      'secret-label-wrong': 'The webhook does not serve Secrets with another label value.',
      'no-managed-secret': 'Without a managed Secret, no Pod gets credentials.',
    },
  },
  webhook: {
    title: 'webhook',
    needs: ['chart'],
    failures: {
      'ca-bundle-invalid': 'The API server does not trust the webhook, and refuses every managed Secret.',
      'ca-bundle-mismatch': 'The API server does not trust the webhook, and refuses every managed Secret.',
      'certificate-invalid': 'The API server does not trust the webhook, and refuses every managed Secret.',
      'webhook-not-deployed': 'The API server refuses every managed Secret.',
      'webhook-scaled-down': 'The API server refuses every managed Secret.',
      'webhook-timeout': 'The API server refuses every managed Secret.',
      'webhook-unreachable': 'The API server refuses every managed Secret.',
    },
  },
  injection: {
    title: 'credential injection',
    needs: ['configuration', 'webhook'],
    failures: {
      'webhook-not-called': 'Secrets are stored without credentials, and no error is shown.',
      'original-answers': 'The webhook of CentML/ecr-anywhere serves the Secrets, and not this one.',
      'webhook-too-old': 'The webhook does not do everything that the refresher relies on.',
      'webhook-too-new': 'The refresher and this command line may misread what the webhook writes.',
      denied: 'The webhook refuses managed Secrets.',
    },
  },
  ecr: {
    title: 'ECR credentials',
    needs: ['injection'],
    failures: {
      'not-entitled':
        'The registry policy gives the namespace no registry, so the webhook denies its Secrets.',
      'aws-no-identity': 'The webhook has no usable AWS credentials, so it gets no token from ECR.',
      'aws-role-denied': 'The webhook may not assume its role, so it gets no token from ECR.',
      'ecr-denied': 'ECR refuses the identity of the webhook.',
      'ecr-throttled': 'ECR throttles the requests of the webhook.',
      'ecr-unavailable': 'The webhook gets no response from ECR or STS.',
      'ecr-error': 'The webhook gets no token from ECR.',
    },
  },
  refresh: {
    title: 'refresh of due Secrets',
    needs: ['permissions', 'ecr'],
    failures: { 'not-refreshed': 'The credentials of these Secrets expire.' },
  },
} as const satisfies Readonly<
  Record<
    string,
    {
      readonly title: string;
      readonly needs: readonly string[];
      readonly failures: Readonly<Record<string, string>>;
    }
  >
>;

export type CheckName = keyof typeof CHECKS;
/** Why a check failed. */
export type FailureCode = { [Check in CheckName]: keyof (typeof CHECKS)[Check]['failures'] }[CheckName];
export const CHECK_NAMES = Object.keys(CHECKS) as readonly CheckName[];

/** What to do about a failure. `repair`: a command that is certainly right. `investigate`: one that only shows more. */
export type Remedy = ({ readonly repair: string } | { readonly investigate: string }) & {
  /** Sentences: what to know before the command is run, and what to do after it. */
  readonly hint?: string;
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
  readonly hint?: string;
  /** A failure that was observed and may only follow from an earlier one. */
  readonly observed?: string;
}

export const repair = (command: string, hint?: string): Remedy => ({
  repair: command,
  ...(hint !== undefined && { hint }),
});
export const investigate = (command: string, hint?: string): Remedy => ({
  investigate: command,
  ...(hint !== undefined && { hint }),
});

/** The remedy of a failure. */
export function remedyOf({ repair: command, investigate: query = '', hint }: Finding): Remedy {
  return command === undefined ? investigate(query, hint) : repair(command, hint);
}

export const passed = (check: CheckName, message: string): Finding => ({ check, verdict: 'passed', message });
export const skipped = (check: CheckName, message: string): Finding => ({
  check,
  verdict: 'skipped',
  message,
});
export function failed(code: FailureCode, message: string, remedy: Remedy): Finding {
  const check = CHECK_NAMES.find((name) => code in CHECKS[name].failures) as CheckName;
  return { check, verdict: 'failed', code, message, ...remedy };
}

const RANK = { failed: 0, passed: 1, skipped: 2 } as const;

/**
 * Returns one finding for each check, in order. Of several findings for a check a failed one wins, then a passed one; of
 * equals the first. A failure becomes `skipped` if an earlier check failed that it depends on, as it may be a consequence.
 */
export function judge(findings: readonly Finding[]): Finding[] {
  const judged = new Map<CheckName, Finding>();
  const failedNeed = (check: CheckName): CheckName | undefined => {
    for (const need of CHECKS[check].needs) {
      const found = judged.get(need)?.verdict === 'failed' ? need : failedNeed(need);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  for (const check of CHECK_NAMES) {
    const [seen] = findings
      .filter((finding) => finding.check === check)
      .toSorted((a, b) => RANK[a.verdict] - RANK[b.verdict]);
    const need = seen?.verdict === 'passed' ? undefined : failedNeed(check);
    if (need !== undefined)
      judged.set(check, {
        ...skipped(check, `“${CHECKS[need].title}” failed`),
        ...(seen?.verdict === 'failed' && { observed: seen.message }),
      });
    else judged.set(check, seen ?? skipped(check, reasonOfNeeds(check, judged)));
  }
  return [...judged.values()];
}

/** Why a check was skipped that has no finding: for the same reason as one that it depends on. */
function reasonOfNeeds(check: CheckName, judged: ReadonlyMap<CheckName, Finding>): string {
  const needs: readonly CheckName[] = CHECKS[check].needs;
  const need = needs.map((name) => judged.get(name)).find((finding) => finding?.verdict === 'skipped');
  return need?.message ?? 'not checked';
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

/** What a failure means for the operator. */
export function meaningOf({ check, code = '' as FailureCode }: Finding): string | undefined {
  const failures: Readonly<Record<string, string>> = CHECKS[check].failures;
  return failures[code];
}

/** A finding as `--output json` prints it. */
export function toJson(finding: Finding) {
  const { check, ...rest } = finding;
  const means = meaningOf(finding);
  return { check, title: CHECKS[check].title, ...rest, ...(means !== undefined && { means }) };
}
