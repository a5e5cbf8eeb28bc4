// Devices with AWS's own SDK, unmodified, that provision themselves: reads a JSON task on standard input, writes
// one JSON result a device. Run by tests/integration/test_sdk.py; MUSTER_SDK is the folder the package is in.
const { createRequire } = require('node:module');
const { once } = require('node:events');
const sdk = createRequire(`${process.env.MUSTER_SDK}/`)('aws-iot-device-sdk-v2');
const { iot, iotidentity, mqtt, mqtt5 } = sdk;

const OPTIONS = { maxRequestResponseSubscriptions: 8, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 20 };

async function connect5(task, identity, clientId) {
  const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(task.host, identity.cert, identity.key);
  builder.withCertificateAuthorityFromPath(undefined, task.ca);
  builder.withPort(task.port);
  builder.withConnectProperties({ clientId, keepAliveIntervalSeconds: 60 });
  const client = new mqtt5.Mqtt5Client(builder.build());
  const refusals = []; // the client tries again by itself
  client.on('connectionFailure', (event) => refusals.push(event.connack ? event.connack.reasonCode : String(event.error)));
  const up = once(client, 'connectionSuccess');
  client.start();
  await up;
  return {
    refusals,
    identity: iotidentity.IotIdentityClientv2.newFromMqtt5(client, OPTIONS),
    publish: (topicName, payload) => client.publish({ topicName, payload, qos: mqtt5.QoS.AtLeastOnce }),
    close: async () => { const down = once(client, 'stopped'); client.stop(); await down; client.close(); },
  };
}

async function connect311(task, identity, clientId) {
  const builder = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(identity.cert, identity.key);
  builder.with_certificate_authority_from_path(undefined, task.ca);
  builder.with_endpoint(task.host);
  builder.with_port(task.port);
  builder.with_client_id(clientId);
  builder.with_clean_session(true);
  const connection = new mqtt.MqttClient().new_connection(builder.build());
  const refusals = [];
  for (let pause = 50; ; pause = Math.min(pause * 2, 4000)) { // its first connect() is the application's to repeat
    try {
      await connection.connect();
      break;
    } catch (error) {
      refusals.push(String(error));
      if (!task.retry || refusals.length > 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return {
    refusals,
    identity: iotidentity.IotIdentityClientv2.newFromMqtt311(connection, OPTIONS),
    publish: (topic, payload) => connection.publish(topic, payload, mqtt.QoS.AtLeastOnce),
    close: () => connection.disconnect(),
  };
}

const connect = (task, identity, id) => (task.version === 5 ? connect5 : connect311)(task, identity, id);

async function provision(task, device) {
  const session = await connect(task, task.claim, device.clientId);
  try {
    const made = device.csr
      ? await session.identity.createCertificateFromCsr({ certificateSigningRequest: device.csr })
      : await session.identity.createKeysAndCertificate({});
    const thing = await session.identity.registerThing({
      templateName: task.template, certificateOwnershipToken: made.certificateOwnershipToken, parameters: { SerialNumber: device.serial },
    });
    return { serial: device.serial, certificateId: made.certificateId, certificatePem: made.certificatePem, privateKey: made.privateKey,
      thingName: thing.thingName, deviceConfiguration: thing.deviceConfiguration };
  } catch (error) {
    const rejected = error.modeledError || error.innerError?.modeledError;
    return { serial: device.serial, error: String(error.message || error), rejected };
  } finally {
    session.identity.close();
    await session.close();
  }
}

// With the permanent certificate: connects and publishes below its own name.
async function operate(task, device) {
  const session = await connect(task, device, device.thingName);
  await session.publish(device.topic || `things/${device.thingName}/telemetry`, JSON.stringify({ from: device.thingName }));
  session.identity.close();
  await session.close();
  return { serial: device.serial, published: true, refusals: session.refusals };
}

async function main() {
  let text = '';
  for await (const chunk of process.stdin) text += chunk;
  const task = JSON.parse(text);
  const work = task.operate ? operate : provision;
  const results = await Promise.all(task.devices.map((device) => work(task, device).catch((error) => ({ serial: device.serial, error: String(error) }))));
  process.stdout.write(JSON.stringify(results), () => process.exit(0));
}

main();
