// Many names in few words. Pure.

/** Of what is wrong in many places, so many are told. */
const TOLD = 5;

/** Names, or the first of them. */
export function formatList(names: readonly string[], most = TOLD): string {
  const more = names.length - most;
  return [...names.slice(0, most), ...(more > 0 ? [`${more} more`] : [])].join(', ');
}
