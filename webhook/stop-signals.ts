// Obeys SIGTERM and SIGINT from the start of the process. `main.ts` imports this file first: as process 1 of a container a
// process without a handler ignores both signals, and reading the configuration and the certificates takes seconds.

type Stop = (signal: NodeJS.Signals) => void;

/** Until the webhook serves, no request is in flight and nothing needs an end. */
let stop: Stop = () => process.exit(0);

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop(signal));

/** Sets what the first SIGTERM or SIGINT does from now on. */
export function onStopSignal(next: Stop): void {
  stop = next;
}
