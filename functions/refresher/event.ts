// What the refresher can be asked for: the documented event of the function. An empty one is the scheduled run.
import { z } from 'zod';

const Event = z.strictObject({
  /** Only these registered clusters. */
  clusters: z.array(z.string().min(1)).min(1).optional(),
  /** Only these namespaces of them. */
  namespaces: z.array(z.string().min(1)).min(1).optional(),
  /** The API servers and the webhook answer as they would, and nothing is stored. */
  dryRun: z.boolean().default(false),
  /** Every managed Secret, due or not, with a token that is not from a cache. */
  force: z.boolean().default(false),
});

export type RefreshEvent = Readonly<z.infer<typeof Event>>;

/** Reads an event. @throws Error that names every field that is wrong */
export function readEvent(event: unknown): RefreshEvent {
  const parsed = Event.safeParse(event ?? {});
  if (parsed.success) return parsed.data;
  throw new Error(
    `The event is not one that the refresher knows: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}. ` +
      'It takes {"clusters": [names], "namespaces": [names], "dryRun": boolean, "force": boolean}, all optional.',
  );
}

/** Whether a run says something of all clusters, so that its figures may be compared with other runs'. */
export function isWholeRun(event: RefreshEvent): boolean {
  return event.clusters === undefined && event.namespaces === undefined && !event.dryRun;
}
