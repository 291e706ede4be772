// Obeys SIGTERM and SIGINT from the start of the process. `main.ts` imports this file first: as process 1 of a container a
// process without a handler ignores both signals.
import { ClusterError } from '../../../lib/cluster-error.ts';

const controller = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () =>
    controller.abort(new ClusterError('reach', `${signal} ended the run`, { code: 'run-ended' })),
  );

/** Aborted by the first SIGTERM or SIGINT, with a ClusterError as its reason. */
export const stopSignal = controller.signal;
