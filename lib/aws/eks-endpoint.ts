// What the host name of an EKS endpoint says. Pure.

/** The region in an EKS endpoint's name; undefined where it is none. */
export function regionOfEndpoint(server: string): string | undefined {
  return /\.([a-z]{2,4}(?:-[a-z]+)+-\d+)\.(?:eks\.|api\.aws$)/.exec(new URL(server).hostname)?.[1];
}
