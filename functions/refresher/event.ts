// What the refresher can be asked for: the documented event of the function. An empty one is the scheduled run.
import { z } from 'zod';

/** What each action takes, beside its name. */
const TAKES = {
  /** Refreshes what is due. */
  refresh: ['clusters', 'namespaces', 'dryRun', 'force'],
  /** A dry run, and what can be found out of each cluster besides. */
  inspect: ['clusters'],
  /** What is known of each cluster, without asking any. */
  status: [],
  /** Ends the tokens of clusters. */
  revoke: ['clusters'],
} as const;

export type Action = keyof typeof TAKES;

const Event = z
  .strictObject({
    action: z.enum(['refresh', 'inspect', 'status', 'revoke']).default('refresh'),
    /** Only these registered clusters. */
    clusters: z.array(z.string().min(1)).min(1).optional(),
    /** Only these namespaces of them. */
    namespaces: z.array(z.string().min(1)).min(1).optional(),
    /** The API servers and the webhook answer as they would, and nothing is stored. */
    dryRun: z.boolean().optional(),
    /** Every managed Secret, due or not, with a token that is not from a cache. */
    force: z.boolean().optional(),
  })
  .superRefine((event, context) => {
    const { action, ...rest } = event;
    const takes: readonly string[] = TAKES[action];
    for (const field of Object.keys(rest).filter((name) => !takes.includes(name)))
      context.addIssue({
        code: 'custom',
        path: [field],
        message: `"${action}" takes ${takes.length > 0 ? `${takes.join(', ')} only` : 'nothing else'}: leave it out`,
      });
    if (action === 'revoke' && event.clusters === undefined)
      context.addIssue({
        code: 'custom',
        path: ['clusters'],
        message: '"revoke" needs them: name the clusters whose tokens are to end',
      });
  })
  .transform(({ dryRun = false, force = false, ...event }) => ({
    ...event,
    // Whoever inspects wants to know, and nothing else.
    dryRun: dryRun || event.action === 'inspect',
    force,
  }));

export type RefreshEvent = Readonly<z.infer<typeof Event>>;

/** Reads an event. @throws Error that names every field that is wrong */
export function readEvent(event: unknown): RefreshEvent {
  const parsed = Event.safeParse(event ?? {});
  if (parsed.success) return parsed.data;
  throw new Error(
    `The event is not one that the refresher knows: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}. ` +
      'It takes {"clusters": [names], "namespaces": [names], "dryRun": boolean, "force": boolean}, all optional; ' +
      'or {"action": "inspect", "clusters": [names]}, which may be left out; {"action": "status"}; ' +
      '{"action": "revoke", "clusters": [names]}.',
  );
}

/** Whether a run says something of all clusters, so that its figures may be compared with other runs'. */
export function isWholeRun({ action, clusters, namespaces, dryRun }: RefreshEvent): boolean {
  return action === 'refresh' && clusters === undefined && namespaces === undefined && !dryRun;
}
