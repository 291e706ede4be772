// Answers one AdmissionReview: reads it, decides, obtains tokens, decides with them, answers and logs.
import type { Logger } from 'pino';
import type { DenialReason } from '../../contract/denials.ts';
import type { EcrTokens } from '../aws/ecr-tokens.ts';
import type { Proofs } from '../caller/proofs.ts';
import { applyTokens, decide, decideByRequest, forceOf } from './decision.ts';
import { isUnnamed, knownRegistries, type NamedRegistries, nameOwnRegistry } from './own-registry.ts';
import { forgetDocuments, ownedEntries } from './owned-entries.ts';
import type { Policy } from './policy.ts';
import {
  type AdmissionRequest,
  allowed,
  denied,
  forgetRaw,
  type PatchOperation,
  type ReviewAnswer,
  readReview,
  shownUser,
} from './review.ts';
import { takeProof } from './take-proof.ts';

const NOT_AUTHENTICATED: DenialReason = 'caller-not-authenticated';

export interface Answer {
  /** The HTTP status: 400 if the body is not an AdmissionReview. */
  status: 200 | 400;
  body: ReviewAnswer | { message: string };
}

/** Who sent a review. */
export interface Caller {
  /** The IP address that the connection comes from. */
  readonly address: string;
  /** When the request arrived, by `performance.now()`. */
  readonly arrivedAt: number;
}

/** What the metrics record of a review: nothing that identifies the Secret or the user. */
export interface AdmissionResult {
  readonly operation: string;
  readonly action: string;
  readonly reason: string;
  readonly ms: number;
}

export interface AdmissionSettings {
  /** The policy in use. */
  readonly policy: () => Policy;
  readonly refresherUsername?: string | undefined;
  /** The only Secret that the refresher may create; undefined: none. */
  readonly provisionSecret?: string | undefined;
  readonly tokens: EcrTokens;
  /** If set, only a request with one of these proofs is decided on; any other is denied. */
  readonly proofs?: Pick<Proofs, 'accepts'> | undefined;
  readonly logger: Logger;
  /** Called after each review. */
  readonly onAnswer?: (result: AdmissionResult) => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Makes the function that answers a parsed JSON body. It never rejects, and logs only the name of a Secret. */
export function admission({
  policy,
  refresherUsername,
  provisionSecret,
  tokens,
  proofs,
  logger,
  onAnswer = () => {},
  now = Date.now,
}: AdmissionSettings): (body: unknown, caller: Caller) => Promise<Answer> {
  return async (body, caller) => {
    const { address } = caller;
    const report = (operation: string, action: string, reason: string) =>
      onAnswer({ operation, action, reason, ms: performance.now() - caller.arrivedAt });
    const review = readReview(body);
    if (review.kind === 'malformed') {
      const { uid, message } = review;
      const reason: DenialReason = 'malformed';
      logger.warn({ uid, address, action: 'deny', reason, causes: [reason], message }, 'admission');
      report('', 'deny', reason);
      if (uid === undefined) return { status: 400, body: { message } };
      return { status: 200, body: denied(uid, { code: 400, message, causes: [{ reason, message }] }) };
    }
    if (review.kind === 'nothing-to-do') {
      report('', 'ignore', 'nothing-to-do');
      return { status: 200, body: allowed(review.uid) };
    }

    const { request, proof, removal } = takeProof(review.request);
    if (request !== review.request) forgetRaw(review.request);
    try {
      if (proofs && !(await proofs.accepts(proof))) {
        report(request.operation, 'deny', NOT_AUTHENTICATED);
        return notAuthenticated(request, caller, proof);
      }
      const { action, reason, answer } = await decideOn(request, removal, caller);
      report(request.operation, action, reason);
      return answer;
    } catch (error) {
      // A document too deep for the stack, or a defect of the webhook: this request is denied, the process goes on.
      const { name, message: why } = error as Error;
      const reason: DenialReason = 'internal-error';
      const message = `The webhook cannot process the Secret: ${name}: ${why}`;
      logger.error(
        {
          uid: request.uid,
          address,
          secret: `${request.namespace}/${request.name}`,
          action: 'deny',
          reason,
          causes: [reason],
          error: name,
        },
        'admission failed',
      );
      report(request.operation, 'deny', reason);
      return {
        status: 200,
        body: denied(request.uid, { code: 500, message, causes: [{ reason, message }] }, request.name),
      };
    }
  };

  /** The answer says nothing about the Secret, the policy or the proof. */
  function notAuthenticated(
    { uid, operation, namespace, name }: AdmissionRequest,
    { address }: Caller,
    proof?: string,
  ): Answer {
    const message =
      'The webhook answers only the API server, and this request has no valid proof that it comes from there. ' +
      'If it does, an administrator finds the cause with docs/troubleshooting.md, "A managed Secret is refused".';
    logger.warn(
      {
        uid,
        address,
        operation,
        secret: `${namespace}/${name}`,
        action: 'deny',
        reason: NOT_AUTHENTICATED,
        causes: [NOT_AUTHENTICATED],
        message:
          proof === undefined ? 'the request has no proof' : 'the proof of the request is not accepted',
      },
      'admission',
    );
    return {
      status: 200,
      body: denied(uid, { code: 403, message, causes: [{ reason: NOT_AUTHENTICATED, message }] }, name),
    };
  }

  async function decideOn(
    request: AdmissionRequest,
    removal: readonly PatchOperation[],
    { address, arrivedAt }: Caller,
  ): Promise<{ action: string; reason: string; answer: Answer }> {
    const { entitlements, isInvalid } = policy();
    const general = { refresherUsername, provisionSecret, isInvalid };
    const entitled = entitlements(request.namespace);
    const { oldObject } = request;
    let named: NamedRegistries = { registries: knownRegistries(entitled, tokens), failures: new Map() };
    if (named.registries.some(isUnnamed) && !decideByRequest(request, general)) {
      const stored = (oldObject && ownedEntries(oldObject)) ?? new Map();
      forgetDocuments(request);
      const run = runOf(request, forceOf(request));
      named = await nameOwnRegistry(entitled, stored, tokens, run, performance.now() - arrivedAt);
    }
    const { registries, failures } = named;
    let decision = decide(request, { ...general, registries }, now());
    forgetRaw(request);
    forgetDocuments(request);
    if (decision.action === 'obtain') {
      const run = runOf(request, decision.force);
      const waitedMs = performance.now() - arrivedAt;
      const outcomes = await Promise.all(
        decision.registries.map((one) => failures.get(one) ?? tokens.obtain(one, run, waitedMs)),
      );
      decision = applyTokens(request, decision, outcomes, now());
    }
    const { action, reason } = decision;
    logger[action === 'deny' ? 'warn' : 'info'](
      {
        uid: request.uid,
        address,
        operation: request.operation,
        secret: `${request.namespace}/${request.name}`,
        user: shownUser(request.user),
        dryRun: request.dryRun,
        action,
        reason,
        ...(decision.action === 'deny'
          ? { causes: [...new Set(decision.causes.map((cause) => cause.reason))], message: decision.message }
          : decision.warnings.length > 0 && { warnings: decision.warnings }),
        ms: Math.round(performance.now() - arrivedAt),
      },
      'admission',
    );
    if (decision.action === 'deny') {
      const body = denied(request.uid, decision, request.name);
      return { action, reason, answer: { status: 200, body } };
    }
    const body = allowed(request.uid, [...removal, ...decision.patch], decision.warnings);
    return { action, reason, answer: { status: 200, body } };
  }
}

/** The id of a forced run. The user is part of it: no other user can have a token obtained for it ahead of time. */
function runOf({ user }: AdmissionRequest, force: string | undefined): string | undefined {
  return force === undefined ? undefined : `${user.username} ${force}`;
}
