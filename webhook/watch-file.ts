// Files that the kubelet puts new contents into: looked at again and again, since no notice of a file system is to be
// relied on behind the links that it swaps.

/** The kubelet takes about a minute to bring a change to its files; a few seconds more do not matter. */
const LOOK_AGAIN_MS = 5_000;

/**
 * Calls `onChange` with each new content. What cannot be read, or is wrong, changes nothing; `onError` hears of it
 * once.
 *
 * @param read rejects, or throws, where the content is wrong
 * @returns what ends the watch
 */
export function watch<Content>(
  read: () => Promise<Content>,
  isSame: (a: Content, b: Content) => boolean,
  first: Content,
  onChange: (content: Content) => void,
  onError: (error: Error) => void,
): () => void {
  let current = first;
  let said = '';
  const timer = setInterval(async () => {
    try {
      const content = await read();
      said = '';
      if (isSame(content, current)) return;
      current = content;
      onChange(content);
    } catch (error) {
      const { message } = error as Error;
      if (said !== message) onError(error as Error);
      said = message;
    }
  }, LOOK_AGAIN_MS);
  return () => clearInterval(timer);
}
