// Polls files whose contents the kubelet replaces. File system events are not reliable here: the kubelet swaps symbolic
// links to directories.

/** The kubelet itself takes about a minute to update its files, so a few seconds do not matter. */
const POLL_MS = 5_000;

/**
 * Calls `onChange` with each new content. An unreadable or invalid file changes nothing; `onError` is called once for
 * each different error.
 *
 * @param read rejects if the content is invalid
 * @param firstError the message of the error with which `first` was read, if it is reported already
 * @returns a function that stops the polling
 */
export function watch<Content>(
  read: () => Promise<Content>,
  isSame: (a: Content, b: Content) => boolean,
  first: Content,
  onChange: (content: Content) => void,
  onError: (error: Error) => void,
  firstError = '',
): () => void {
  let current = first;
  let lastError = firstError;
  const timer = setInterval(async () => {
    try {
      const content = await read();
      lastError = '';
      if (isSame(content, current)) return;
      current = content;
      onChange(content);
    } catch (error) {
      const { message } = error as Error;
      if (lastError !== message) onError(error as Error);
      lastError = message;
    }
  }, POLL_MS);
  return () => clearInterval(timer);
}
