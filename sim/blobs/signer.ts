/** Signatures of simulated nodes: what was signed is remembered, so nothing else verifies. */
import type { MemberRecord, RecordSigner } from '../../mesh/core/membership/records.ts';

export function createBlobSigner(): RecordSigner {
  const genuine = new WeakSet<MemberRecord>();
  return {
    sign(record) {
      const signed: MemberRecord = { ...record, signature: `${record.id} ${record.incarnation}` };
      genuine.add(signed);
      return signed;
    },
    verify: (record) => genuine.has(record),
  };
}
