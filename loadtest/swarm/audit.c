#include "audit.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/secret.h"
#include "base/text.h"

enum { MAX_COMPLAINTS = 5, HEX_BYTES = 2 * SHA256_BYTES };

static inline void resultp(PGresult **r)
{
    PQclear(*r);
}

static inline void connectionp(PGconn **c)
{
    PQfinish(*c);
}

/* Every live operational certificate of the run, by serial. */
static const char live_sql[] =
    "SELECT d.serial, encode(c.fingerprint, 'hex'), c.status FROM muster.device d"
    " JOIN muster.certificate c ON c.device_id = d.id AND c.purpose = 'operational'"
    " AND c.status IN ('pending', 'current') WHERE d.serial LIKE $1 || '-%' ORDER BY d.serial, "
    "c.id";

static const char doubled_sql[] =
    "SELECT count(*) FROM (SELECT d.serial FROM muster.device d LEFT JOIN muster.certificate c"
    " ON c.device_id = d.id AND c.purpose = 'operational' AND c.status IN ('pending', 'current')"
    " WHERE d.serial LIKE $1 || '-%' GROUP BY d.serial"
    " HAVING count(DISTINCT d.id) > 1 OR count(*) FILTER (WHERE c.status = 'pending') > 1"
    " OR count(*) FILTER (WHERE c.status = 'current') > 1) x";

static const char tokens_sql[] =
    "SELECT count(*) FROM muster.token t WHERE t.serial LIKE $1 || '-%' AND (t.uses > 0) <>"
    " EXISTS (SELECT 1 FROM muster.token_use u JOIN muster.certificate c ON c.id = u.certificate_id"
    " WHERE u.token_id = t.id)";

/* What the run's claim was given and came to nothing: it waits for a registration, or the
 * certificate it became is not there. */
static const char claimed_sql[] =
    "SELECT coalesce(d.serial, k.csr_serial, '') COLLATE \"C\" FROM muster.claim_certificate k"
    " JOIN muster.claim m ON m.id = k.claim_id AND m.name = $1"
    " LEFT JOIN muster.device d ON d.id = k.device_id"
    " LEFT JOIN muster.certificate c ON c.device_id = k.device_id AND c.fingerprint = k.fingerprint"
    " WHERE k.status = 'pending' OR (k.status = 'registered' AND c.id IS NULL) ORDER BY 1";

/* Below the run's own CA: certificates that are known and came to nothing, and those whose device
 * has no thing. */
static const char jit_sql[] =
    "SELECT (SELECT count(*) FROM muster.jit_certificate j WHERE j.ca_id = a.id"
    " AND j.status <> 'assigned') + (SELECT count(*) FROM muster.certificate c"
    " WHERE c.issuer_id = a.id AND NOT EXISTS (SELECT 1 FROM muster.thing t"
    " WHERE t.device_id = c.device_id)) FROM muster.ca a WHERE a.name = $1"
    " UNION ALL SELECT 0 LIMIT 1";

/* What DPS assigned, and how many devices there are for it. */
static const char assigned_sql[] =
    "SELECT r.registration_id COLLATE \"C\", r.endpoint, r.device_name, (SELECT count(*)"
    " FROM muster.device d WHERE d.product_id = r.product_id"
    " AND d.serial_canonical = r.serial_canonical) FROM muster.dps_registration r"
    " WHERE r.registration_id LIKE $1 || '-%' ORDER BY 1";

static const char devices_sql[] =
    "SELECT count(*) FROM muster.device d WHERE d.serial LIKE $1 || '-%'";

static enum err ask(PGconn *c, const char *sql, const char *prefix, FILE *out, PGresult **ret)
{
    PGresult *r = PQexecParams(c, sql, 1, NULL, &prefix, NULL, NULL, 0);
    if (PQresultStatus(r) == PGRES_TUPLES_OK) {
        *ret = r;
        return ERR_OK;
    }
    fprintf(out, "audit: %s", PQerrorMessage(c));
    PQclear(r);
    return ERR_UNAVAILABLE;
}

static enum err count(PGconn *c, const char *sql, const char *prefix, FILE *out, size_t *ret)
{
    _cleanup_(resultp) PGresult *r = NULL;
    enum err e = ask(c, sql, prefix, out, &r);
    if (!e)
        *ret = strtoul(PQgetvalue(r, 0, 0), NULL, 10);
    return e;
}

static void complain(FILE *out, size_t count, const char *what, const char *serial)
{
    if (count <= MAX_COMPLAINTS)
        fprintf(out, "audit: %s: %s\n", what, serial);
}

static void hex_of(const uint8_t *fingerprint, char out[HEX_BYTES + 1])
{
    for (size_t i = 0; i < SHA256_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", fingerprint[i]);
}

/* The rows of one device, which stand together from *at on; moves *at behind them. */
static void device_judge(const struct fleet_device_view *v, const PGresult *live, int *at,
                         FILE *out, struct audit *a)
{
    char held[HEX_BYTES + 1] = "";
    bool found = false;
    int strange = 0;
    if (v->fingerprint)
        hex_of(v->fingerprint, held);
    for (; *at < PQntuples(live) && strcmp(PQgetvalue(live, *at, 0), v->serial) == 0; (*at)++) {
        bool same = strcmp(PQgetvalue(live, *at, 1), held) == 0;
        found = found || same;
        /* beside a pending one that is held, the current one before it lives on until that is used
         */
        strange += !same && (!v->fingerprint || strcmp(PQgetvalue(live, *at, 2), "pending") == 0);
    }
    a->held += v->fingerprint != NULL;
    if (v->fingerprint && !found) {
        a->lost++;
        complain(out, a->lost, "held but not live in the registry", v->serial);
    }
    if (strange > 0 && !v->answer_lost) {
        a->orphaned++;
        complain(out, a->orphaned, "live in the registry but held by nobody", v->serial);
    }
}

/* Both are sorted by serial; a row may stand only where an answer was lost. */
static void claimed_judge(const struct fleet *fleet, const PGresult *claimed, FILE *out,
                          struct audit *a)
{
    size_t n = 0;
    for (int row = 0; row < PQntuples(claimed); row++) {
        const char *serial = PQgetvalue(claimed, row, 0);
        struct fleet_device_view v = {.serial = ""};
        for (; n < fleet_count(fleet); n++) {
            fleet_view(fleet, n, &v);
            if (strcmp(v.serial, serial) >= 0)
                break;
        }
        if (n < fleet_count(fleet) && strcmp(v.serial, serial) == 0 && v.answer_lost)
            continue;
        a->orphaned++;
        complain(out, a->orphaned, "made for the claim but not registered", serial);
    }
}

/* The row of one device, if it is at *at; moves *at behind it. */
static void assignment_judge(const struct fleet_device_view *v, const PGresult *assigned, int *at,
                             FILE *out, struct audit *a)
{
    bool found = *at < PQntuples(assigned) && strcmp(PQgetvalue(assigned, *at, 0), v->serial) == 0;
    int row = found ? (*at)++ : 0;
    a->assigned += v->hub != NULL;
    if (v->hub && !(found && strcmp(PQgetvalue(assigned, row, 1), v->hub) == 0 &&
                    strcmp(PQgetvalue(assigned, row, 2), v->device_id) == 0)) {
        a->lost++;
        complain(out, a->lost, "assigned but not so in the registry", v->serial);
    }
    if (found && !v->hub && !v->answer_lost) {
        a->orphaned++;
        complain(out, a->orphaned, "registered but never told so", v->serial);
    }
    if (found && strcmp(PQgetvalue(assigned, row, 3), "1") != 0) {
        a->doubled++;
        complain(out, a->doubled, "registered without one device for it", v->serial);
    }
}

/* Both are sorted by serial. */
static void assigned_judge(const struct fleet *fleet, const PGresult *assigned, FILE *out,
                           struct audit *a)
{
    int at = 0;
    for (size_t n = 0; n < fleet_count(fleet); n++) {
        struct fleet_device_view v;
        fleet_view(fleet, n, &v);
        assignment_judge(&v, assigned, &at, out, a);
    }
    if (at < PQntuples(assigned)) {
        a->orphaned += (size_t)(PQntuples(assigned) - at);
        complain(out, 1, "registrations of no device of the run", PQgetvalue(assigned, at, 0));
    }
}

enum err audit_run(const char *database, const char *prefix, const struct fleet *fleet, FILE *out,
                   struct audit *ret_audit)
{
    struct audit a = {.devices = 0};
    size_t half = 0;
    _cleanup_(connectionp) PGconn *c = PQconnectdb(database);
    _cleanup_(resultp) PGresult *live = NULL;
    _cleanup_(resultp) PGresult *claimed = NULL;
    _cleanup_(resultp) PGresult *assigned = NULL;
    if (PQstatus(c) != CONNECTION_OK) {
        fprintf(out, "audit: %s", PQerrorMessage(c));
        return ERR_UNAVAILABLE;
    }
    enum err e = ask(c, live_sql, prefix, out, &live);
    if (!e)
        e = ask(c, claimed_sql, prefix, out, &claimed);
    if (!e)
        e = ask(c, assigned_sql, prefix, out, &assigned);
    if (!e)
        e = count(c, doubled_sql, prefix, out, &a.doubled);
    if (!e)
        e = count(c, tokens_sql, prefix, out, &a.tokens);
    if (!e)
        e = count(c, devices_sql, prefix, out, &a.devices);
    if (!e)
        e = count(c, jit_sql, prefix, out, &half);
    if (e)
        return e;
    int at = 0;
    for (size_t n = 0; n < fleet_count(fleet); n++) {
        struct fleet_device_view v;
        fleet_view(fleet, n, &v);
        device_judge(&v, live, &at, out, &a);
    }
    if (at != PQntuples(live)) {
        a.orphaned += (size_t)(PQntuples(live) - at);
        complain(out, 1, "serials that no device of the run has", PQgetvalue(live, at, 0));
    }
    claimed_judge(fleet, claimed, out, &a);
    assigned_judge(fleet, assigned, out, &a);
    if (half > 0)
        fprintf(out, "audit: %zu factory certificates are half registered\n", half);
    a.orphaned += half;
    *ret_audit = a;
    return ERR_OK;
}

int audit_clean(const struct audit *a)
{
    return a->lost == 0 && a->doubled == 0 && a->orphaned == 0 && a->tokens == 0;
}
