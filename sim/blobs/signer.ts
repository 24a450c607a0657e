/** Signatures of simulated nodes: what was signed is remembered, so nothing else verifies. */
import { hashText } from '../../mesh/core/hash.ts';
import type { MemberRecord, RecordSigner } from '../../mesh/core/membership/records.ts';

export function createBlobSigner(): RecordSigner {
  const genuine = new WeakSet<MemberRecord>();
  return {
    sign(record) {
      // Two records that say different things differ in their signatures, as genuine ones do.
      const said = hashText(JSON.stringify(record));
      const signed: MemberRecord = { ...record, signature: `${record.id} ${said}` };
      genuine.add(signed);
      return signed;
    },
    verify: (record) => genuine.has(record),
  };
}
