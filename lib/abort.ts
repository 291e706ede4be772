// Makes operations that take no AbortSignal end with one.

/**
 * Settles as the promise does, or rejects with the signal's reason if it is aborted first. The operation itself goes on;
 * its later rejection is ignored.
 */
export async function abortable<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([aborted, promise]);
  } finally {
    // A signal with a time-out keeps its listeners, and what they refer to, until the time is up.
    signal.removeEventListener('abort', abort);
  }
}
