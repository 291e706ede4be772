// Admission to credentials, in order: read the review, decide, obtain tokens, settle, answer, log.
import type { Logger } from 'pino';
import { decide, type Policy, settle } from './decision.ts';
import type { EcrTokens } from './ecr-tokens.ts';
import { type AdmissionRequest, allowed, denied, type ReviewAnswer, readReview } from './review.ts';

export interface Answer {
  /** The HTTP status: other than 200 only where there is no review to answer. */
  status: 200 | 400;
  body: ReviewAnswer | { message: string };
}

/** Makes the function that answers a parsed JSON body. It never rejects and never logs more of a Secret than its name. */
export function admission(
  policy: Policy,
  tokens: EcrTokens,
  logger: Logger,
  now: () => number = Date.now,
): (body: unknown) => Promise<Answer> {
  return async (body) => {
    const reading = readReview(body);
    if (reading.kind === 'mistake') {
      logger.warn({ uid: reading.uid, reason: 'malformed', message: reading.message }, 'admission');
      if (reading.uid === undefined) return { status: 400, body: { message: reading.message } };
      return { status: 200, body: denied(reading.uid, 400, reading.message) };
    }
    if (reading.kind === 'nothing-to-do') return { status: 200, body: allowed(reading.uid) };

    const { request } = reading;
    try {
      return await answerTo(request);
    } catch (error) {
      // A document nested so deep that the stack ends, or a defect of ours: whoever asked is told, and nobody else suffers.
      const { name, message } = error as Error;
      logger.error(
        { uid: request.uid, secret: `${request.namespace}/${request.name}`, error: name },
        'admission failed',
      );
      return {
        status: 200,
        body: denied(request.uid, 500, `This webhook cannot process the Secret: ${name}: ${message}`),
      };
    }
  };

  async function answerTo(request: AdmissionRequest): Promise<Answer> {
    const startedAt = performance.now();
    const known = { ...policy, registries: policy.registries.map((registry) => tokens.known(registry)) };
    let verdict = decide(request, known, now());
    if (verdict.action === 'obtain') {
      const { force } = verdict;
      const outcomes = await Promise.all(policy.registries.map((registry) => tokens.obtain(registry, force)));
      verdict = settle(request, verdict, outcomes, now());
    }
    logger[verdict.action === 'deny' ? 'warn' : 'info'](
      {
        uid: request.uid,
        operation: request.operation,
        secret: `${request.namespace}/${request.name}`,
        user: request.user.username,
        dryRun: request.dryRun,
        action: verdict.action,
        reason: verdict.reason,
        ...(verdict.action === 'deny'
          ? { message: verdict.message }
          : verdict.warnings.length > 0 && { warnings: verdict.warnings }),
        ms: Math.round(performance.now() - startedAt),
      },
      'admission',
    );
    if (verdict.action === 'deny')
      return { status: 200, body: denied(request.uid, verdict.code, verdict.message) };
    return { status: 200, body: allowed(request.uid, verdict.patch, verdict.warnings) };
  }
}
