// A list of names, shortened for messages. Pure.

/** How many names a message lists. */
const MAX_NAMES = 5;

/** The names, or the first of them and the number of the others. */
export function formatList(names: readonly string[], max = MAX_NAMES): string {
  const more = names.length - max;
  return [...names.slice(0, max), ...(more > 0 ? [`${more} more`] : [])].join(', ');
}
