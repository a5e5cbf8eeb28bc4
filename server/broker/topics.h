/*
 * What may be asked where: the topics of fleet provisioning, those of a device's own thing, and
 * the names clients may have. Threads: any.
 */
#pragma once

#include <stdbool.h>

enum { TOPIC_SHOWN_BYTES = 201 };

/* One of the six a claim may write: create, create-from-csr and provision, in JSON and CBOR. */
bool topic_is_request(const char *topic);

/* One of these followed by /accepted or /rejected, and exactly that. */
bool topic_is_answer(const char *topic);

/* Where musterd may have an event published. */
bool topic_is_event(const char *topic);

/* Not empty or too long, printable, and nothing that means something in a topic. */
bool client_id_valid(const char *id);

/* Whether the client id is one that only musterd may have. */
bool client_id_is_service(const char *id);

/* Printable ASCII, the rest replaced by '?', cut to 200. */
void topic_show(const char *topic, char ret_text[TOPIC_SHOWN_BYTES]);
