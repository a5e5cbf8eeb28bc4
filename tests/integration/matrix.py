"""The authorization matrix: what every route answers to every kind of credential.

The tables are the specification, written by hand; test_matrix.py plays them. A row is a
credential, a column a group of routes, a cell the code of the refusal or ok. Under DEVICE_ROUTES
and ADMIN_ROUTES each route of the server names its group: one that is missing fails the test."""

# (method, pattern of the route table): (column, path that is asked, body); {} stand for what test_matrix.py prepares
EST = "/.well-known/est"
DEVICE_ROUTES = {
    ("GET", "/healthz"): ("public", "/healthz"),
    ("GET", "/readyz"): ("public", "/readyz"),
    ("GET", EST + "/cacerts"): ("public", EST + "/cacerts"),
    ("GET", EST + "/{}/cacerts"): ("public", EST + "/matrix/cacerts"),
    ("GET", EST + "/csrattrs"): ("public", EST + "/csrattrs"),
    ("GET", EST + "/{}/csrattrs"): ("public", EST + "/matrix/csrattrs"),
    ("POST", EST + "/simpleenroll"): ("enrol", EST + "/simpleenroll"),
    ("POST", EST + "/{}/simpleenroll"): ("label", EST + "/matrix/simpleenroll"),
    ("POST", EST + "/simplereenroll"): ("renew", EST + "/simplereenroll"),
    ("POST", EST + "/{}/simplereenroll"): ("renew", EST + "/matrix/simplereenroll"),
    ("POST", EST + "/fullcmc"): ("cmc", EST + "/fullcmc"),
    ("POST", EST + "/{}/fullcmc"): ("cmc", EST + "/matrix/fullcmc"),
    ("POST", "/v1/enroll"): ("json", "/v1/enroll"),
    ("GET", "/v1/device/config"): ("config", "/v1/device/config"),
}


def table(text):
    """{row: {column: cell}} of lines of words; the first line names the columns."""
    head, *lines = [line.split("|") for line in text.strip().splitlines()]
    columns = [c.strip() for c in head[1:]]
    rows = {}
    for line in lines:
        cells = [c.strip() for c in line[1:]]
        assert len(cells) == len(columns), line
        assert line[0].strip() not in rows, line
        rows[line[0].strip()] = dict(zip(columns, cells))
    return rows
