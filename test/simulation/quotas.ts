// The AWS quotas that a fleet meets, with their sources.

export const QUOTAS = {
  /** Calls of GetAuthorizationToken a second, for an account and Region (ECR User Guide, "Amazon ECR service quotas"). */
  ecrPerSecond: 500,
  /** What throttles them, by another page (ECR User Guide, "Troubleshooting Amazon ECR error messages"); 200 at once. */
  ecrThrottlePerSecond: 20,
} as const;
