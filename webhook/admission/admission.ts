// Admission to credentials, in order: read the review, decide, obtain tokens, settle, answer, log.
import type { Logger } from 'pino';
import type { DenialReason } from '../../contract/denials.ts';
import type { EcrTokens } from '../aws/ecr-tokens.ts';
import { decide, settle } from './decision.ts';
import type { Policy } from './policy.ts';
import { type AdmissionRequest, allowed, denied, type ReviewAnswer, readReview } from './review.ts';

export interface Answer {
  /** The HTTP status: other than 200 only where there is no review to answer. */
  status: 200 | 400;
  body: ReviewAnswer | { message: string };
}

/** What was done with a review, without whose it was. */
export interface Answered {
  readonly operation: string;
  readonly action: string;
  readonly reason: string;
  readonly ms: number;
}

export interface AdmissionSettings {
  /** The policy of the moment. */
  readonly policy: () => Policy;
  readonly refresherUsername?: string | undefined;
  readonly tokens: EcrTokens;
  readonly logger: Logger;
  /** Hears of each review that was answered. */
  readonly onAnswered?: (answered: Answered) => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Makes the function that answers a parsed JSON body. It never rejects and never logs more of a Secret than its name. */
export function admission({
  policy,
  refresherUsername,
  tokens,
  logger,
  onAnswered = () => {},
  now = Date.now,
}: AdmissionSettings): (body: unknown) => Promise<Answer> {
  return async (body) => {
    const startedAt = performance.now();
    const done = (operation: string, action: string, reason: string) =>
      onAnswered({ operation, action, reason, ms: performance.now() - startedAt });
    const reading = readReview(body);
    if (reading.kind === 'mistake') {
      const { uid, message } = reading;
      const reason: DenialReason = 'malformed';
      logger.warn({ uid, action: 'deny', reason, causes: [reason], message }, 'admission');
      done('', 'deny', reason);
      if (uid === undefined) return { status: 400, body: { message } };
      return { status: 200, body: denied(uid, { code: 400, message, causes: [{ reason, message }] }) };
    }
    if (reading.kind === 'nothing-to-do') {
      done('', 'ignore', 'nothing-to-do');
      return { status: 200, body: allowed(reading.uid) };
    }

    const { request } = reading;
    try {
      const { action, reason, answer } = await answerTo(request, startedAt);
      done(request.operation, action, reason);
      return answer;
    } catch (error) {
      // A document nested so deep that the stack ends, or a defect of ours: whoever asked is told, and nobody else suffers.
      const { name, message: why } = error as Error;
      const reason: DenialReason = 'internal-error';
      const message = `The webhook cannot process the Secret: ${name}: ${why}`;
      logger.error(
        {
          uid: request.uid,
          secret: `${request.namespace}/${request.name}`,
          action: 'deny',
          reason,
          causes: [reason],
          error: name,
        },
        'admission failed',
      );
      done(request.operation, 'deny', reason);
      return {
        status: 200,
        body: denied(request.uid, { code: 500, message, causes: [{ reason, message }] }, request.name),
      };
    }
  };

  async function answerTo(
    request: AdmissionRequest,
    startedAt: number,
  ): Promise<{ action: string; reason: string; answer: Answer }> {
    const registries = policy()
      .entitlements(request.namespace)
      .map((registry) => tokens.known(registry));
    let verdict = decide(request, { registries, refresherUsername }, now());
    if (verdict.action === 'obtain') {
      const { force } = verdict;
      const outcomes = await Promise.all(
        verdict.registries.map((registry) => tokens.obtain(registry, force)),
      );
      verdict = settle(request, verdict, outcomes, now());
    }
    const { action, reason } = verdict;
    logger[action === 'deny' ? 'warn' : 'info'](
      {
        uid: request.uid,
        operation: request.operation,
        secret: `${request.namespace}/${request.name}`,
        user: request.user.username,
        dryRun: request.dryRun,
        action,
        reason,
        ...(verdict.action === 'deny'
          ? { causes: [...new Set(verdict.causes.map((cause) => cause.reason))], message: verdict.message }
          : verdict.warnings.length > 0 && { warnings: verdict.warnings }),
        ms: Math.round(performance.now() - startedAt),
      },
      'admission',
    );
    if (verdict.action === 'deny') {
      const body = denied(request.uid, verdict, request.name);
      return { action, reason, answer: { status: 200, body } };
    }
    const body = allowed(request.uid, verdict.patch, verdict.warnings);
    return { action, reason, answer: { status: 200, body } };
  }
}
