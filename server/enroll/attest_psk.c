/* A device that proved its group's derived key in TLS. The registry judges the group again when the
 * enrolment is recorded. */
#include "enroll/attest.h"
#include "enroll/psk.h"
#include "model/psk_identity.h"

enum err attest_psk(struct enrolment *e)
{
    struct psk_identity id;
    if (psk_identity_parse(bytes_text(e->rq->psk_identity), &id))
        return fault_set(e->fault, FAULT_INTERNAL, "a PSK identity that no handshake lets in");
    const struct catalog_psk *group = snapshot_psk(e->snapshot, id.product);
    if (!group)
        return fault_set(e->fault, FAULT_ENROLLMENT_UNKNOWN, "product %s has no PSK group any more",
                         id.product);
    e->enrollment = (struct enrollment_row){.id = group->id,
                                            .grouped = true,
                                            .enabled = group->enabled,
                                            .attestation = ATTEST_PSK,
                                            .name = group->name,
                                            .serial = arena_strdup(e->arena, id.serial),
                                            .template_id = group->template_id};
    if (!e->enrollment.serial)
        return enrolment_no_memory(e);
    e->credential = CREDENTIAL_ENROLLMENT;
    return group->enabled ? ERR_OK
                          : fault_set(e->fault, FAULT_ENROLLMENT_DISABLED, "group %s", group->name);
}
