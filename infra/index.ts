// What the npm package exports as ecr-anywhere/cdk: the constructs for a CDK app of one's own.
export { ClusterIdentity, type ClusterIdentityProps } from './cluster-identity.ts';
export type { FunctionProps } from './function.ts';
export { Refresher, type RefresherProps } from './refresher.ts';
export type { RefresherSettings } from './refresher-settings.ts';
