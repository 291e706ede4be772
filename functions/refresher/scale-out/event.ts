// Parses the events of the state machine, one for each step of a run in batches. They are not part of the function API.
import { z } from 'zod';
import { InvalidEventError, qualifierOf } from '../event.ts';
import { SCALE_OUT_ALIAS } from '../settings.ts';

/** A run's name is one segment of an object's key: an event must not reach outside the runs. */
const Run = z
  .string()
  .regex(
    /^(?!\.+$)[\w.=+@-]{1,80}$/,
    'is not a name of letters, digits and _.=+@-, of at most 80 characters',
  );

const Step = z.discriminatedUnion('scaleOut', [
  // From the start of the execution, `seconds` until the batches must have ended, so that the summary has time.
  z.strictObject({
    scaleOut: z.literal('list'),
    run: Run,
    started: z.iso.datetime({ offset: true }),
    seconds: z.int().min(1),
  }),
  z.strictObject({ scaleOut: z.literal('batch'), run: Run, batch: z.int().min(0) }),
  z.strictObject({ scaleOut: z.literal('summary'), run: Run }),
]);

/** A step of a run in batches. `run` is the name of the state machine's execution. */
export type ScaleOutStep = Readonly<z.infer<typeof Step>>;

/** The state machine sent an event that is no step: the function is older or newer than the state machine. */
export class ScaleOutEventError extends Error {
  override readonly name = 'ScaleOutEventError';
}

/**
 * The step that the event asks for; undefined if it is an event of the function API.
 *
 * @param invokedArn the ARN that was invoked; undefined if it is unknown
 * @throws ScaleOutEventError if the state machine sent something else, so that its execution fails; InvalidEventError if
 * another caller sent a step
 */
export function readStep(event: unknown, invokedArn: string | undefined): ScaleOutStep | undefined {
  const isOurs = qualifierOf(invokedArn) === SCALE_OUT_ALIAS;
  const isStep = typeof event === 'object' && event !== null && 'scaleOut' in event;
  if (!isOurs && !isStep) return undefined;
  if (!isOurs)
    throw new InvalidEventError(
      `Only the state machine may send the steps of a run, through the alias "${SCALE_OUT_ALIAS}": to start a run, ` +
        'start an execution of the state machine, or send the empty event.',
      ['scaleOut'],
    );
  const parsed = Step.safeParse(event);
  if (parsed.success) return parsed.data;
  throw new ScaleOutEventError(
    `The alias "${SCALE_OUT_ALIAS}" accepts the steps of a run only: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}. ` +
      'If the state machine sent this without a name of yours, deploy the stack again.',
  );
}
