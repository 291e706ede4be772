// The CDK's feature flags, of which the template depends: those of the checkout's cdk.json, also beside another one.
import cdk from '../cdk.json' with { type: 'json' };

/** The feature flags of cdk.json, without settings. */
export const FEATURE_FLAGS: Readonly<Record<string, unknown>> = Object.fromEntries(
  Object.entries(cdk.context).filter(([key]) => key.startsWith('@aws-cdk')),
);
