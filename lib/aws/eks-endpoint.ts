// Reads the region out of the host name of an EKS endpoint. Pure.

/** The region of an EKS endpoint; undefined if the server is none. */
export function regionOfEndpoint(server: string): string | undefined {
  return /\.([a-z]{2,4}(?:-[a-z]+)+-\d+)\.(?:eks\.|api\.aws$)/.exec(new URL(server).hostname)?.[1];
}
