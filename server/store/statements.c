#include "store/statements.h"

#include "base/cleanup.h"
#include "store/bootstrap.h"
#include "store/catalog_load.h"
#include "store/claim.h"
#include "store/commit.h"
#include "store/desk.h"
#include "store/enrol.h"
#include "store/enrollment.h"
#include "store/event.h"
#include "store/expiry.h"
#include "store/factory.h"
#include "store/foreign_crl.h"
#include "store/gate.h"
#include "store/gauges.h"
#include "store/jit.h"
#include "store/journal.h"
#include "store/lease.h"
#include "store/maintain.h"
#include "store/migrate.h"
#include "store/recovery.h"
#include "store/revocation.h"
#include "store/scep.h"

const struct stmt_set *const statement_sets[] = {
    &migrate_statements, &maintain_statements,   &bootstrap_statements, &catalog_statements,
    &enrol_statements,   &commit_statements,     &desk_statements,      &gate_statements,
    &gauges_statements,  &lease_statements,      &claim_statements,     &jit_statements,
    &event_statements,   &revocation_statements, &expiry_statements,    &foreign_crl_statements,
    &factory_statements, &journal_statements,    &recovery_statements,  &enrollment_statements,
    &scep_statements,
};
const size_t statement_set_count = ARRAY_LEN(statement_sets);
