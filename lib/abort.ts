/** What a promise comes to, unless the signal is aborted first: for what knows no signal, or is shared. */
export async function abortable<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    // A signal with listeners is kept until its time is up, and what they hold with it.
    signal.removeEventListener('abort', abort);
  }
}
