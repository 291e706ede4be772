// Parses the event of an invocation. The events and their fields are in contract/refresher-api.ts.
import { z } from 'zod';
import { type Action, ERROR_TYPE, needsOperatorAlias, OPERATOR_ALIAS } from '../../contract/refresher-api.ts';

/** The fields that each action accepts, beside `action`. */
const FIELDS = {
  refresh: ['clusters', 'namespaces', 'dryRun', 'force'],
  inspect: ['clusters', 'version'],
  status: [],
  revoke: ['clusters'],
} as const satisfies Readonly<Record<Action, readonly string[]>>;

const Event = z
  .strictObject({
    action: z.enum(['refresh', 'inspect', 'status', 'revoke']).default('refresh'),
    clusters: z.array(z.string().min(1)).min(1).optional(),
    namespaces: z.array(z.string().min(1)).min(1).optional(),
    dryRun: z.boolean().optional(),
    force: z.boolean().optional(),
    version: z.string().min(1).optional(),
  })
  .superRefine((event, context) => {
    const { action, ...rest } = event;
    const fields: readonly string[] = FIELDS[action];
    for (const field of Object.keys(rest).filter((name) => !fields.includes(name)))
      context.addIssue({
        code: 'custom',
        path: [field],
        message: `"${action}" accepts ${fields.length > 0 ? `${fields.join(', ')} only` : 'no other field'}: remove it`,
      });
    if (action === 'revoke' && event.clusters === undefined)
      context.addIssue({
        code: 'custom',
        path: ['clusters'],
        message: '"revoke" requires "clusters": name the clusters whose tokens to revoke',
      });
    if (event.version !== undefined && event.clusters?.length !== 1)
      context.addIssue({
        code: 'custom',
        path: ['clusters'],
        message: '"version" requires one of "clusters": name the cluster whose secret has that version',
      });
  })
  .transform(({ dryRun = false, force = false, ...event }) => ({
    ...event,
    // An inspection changes nothing.
    dryRun: dryRun || event.action === 'inspect',
    force,
  }));

/** An event with its defaults. */
export type ParsedEvent = Readonly<z.infer<typeof Event>>;

/** The event is not one of the function API. */
export class InvalidEventError extends Error {
  override readonly name = ERROR_TYPE.invalidEvent;
  /** The names of the invalid fields; empty if the event is not an object. */
  readonly fields: readonly string[];

  constructor(message: string, fields: readonly string[]) {
    super(message);
    this.fields = fields;
  }
}

/** Reads an event. @throws InvalidEventError that names every invalid field */
export function readEvent(event: unknown): ParsedEvent {
  const parsed = Event.safeParse(event ?? {});
  if (parsed.success) return parsed.data;
  throw notKnown(parsed.error);
}

/**
 * Refuses an event that only the alias accepts.
 *
 * @param invokedArn the ARN that was invoked; undefined if it is unknown
 * @throws InvalidEventError
 */
export function requireOperatorAlias(event: ParsedEvent, invokedArn: string | undefined): void {
  if (!needsOperatorAlias(event) || qualifierOf(invokedArn) === OPERATOR_ALIAS) return;
  throw new InvalidEventError(
    `Update the command line, or invoke the alias "${OPERATOR_ALIAS}" of the function (aws lambda invoke --qualifier ` +
      `${OPERATOR_ALIAS}): only it accepts "revoke" and "force".`,
    [event.action === 'revoke' ? 'action' : 'force'],
  );
}

/** The alias or version at the end of `arn:aws:lambda:REGION:ACCOUNT:function:NAME:QUALIFIER`. */
export function qualifierOf(arn: string | undefined): string | undefined {
  return arn?.split(':')[7];
}

function notKnown(error: z.ZodError): InvalidEventError {
  return new InvalidEventError(
    `The event is not one that the refresher knows: ${z.prettifyError(error).replaceAll('\n', ' ')}. ` +
      'The refresher accepts {"action": "refresh", "clusters": [names], "namespaces": [names], "dryRun": boolean, ' +
      '"force": boolean}, all optional; {"action": "inspect", "clusters": [names], "version": id}, both optional; ' +
      '{"action": "status"}; and {"action": "revoke", "clusters": [names]}.',
    error.issues.flatMap((issue) =>
      issue.code === 'unrecognized_keys' ? issue.keys : issue.path.slice(0, 1).map(String),
    ),
  );
}

/** Whether a run covers all clusters, so that its metrics can be compared with those of other runs. */
export function isWholeRun({ action, clusters, namespaces, dryRun }: ParsedEvent): boolean {
  return action === 'refresh' && clusters === undefined && namespaces === undefined && !dryRun;
}
