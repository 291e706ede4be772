// Which registries a Secret is given, and how ECR names their hosts. Pure.

export interface Registry {
  readonly region: string;
  /** The host once it is known: the caller's own registry tells it only with its first token. */
  readonly host?: string | undefined;
}

/** Whether a host may be the registry's: equal where its host is known, else a private ECR host of its region. */
export function isHostOf(registry: Registry, host: string): boolean {
  return registry.host === undefined ? regionOfEcrHost(host) === registry.region : host === registry.host;
}

/** The names of a private registry (Amazon ECR user guide, "Amazon ECR interface endpoints" and dual-stack endpoints). */
const ECR_HOST =
  /^\d{12}\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn)$/;

/** The region of a private ECR host; undefined for any other host. */
export function regionOfEcrHost(host: string): string | undefined {
  return ECR_HOST.exec(host)?.[1];
}
